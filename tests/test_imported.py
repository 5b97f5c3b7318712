"""Published files, imported and used through the command line, give what the authors' programs give."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from standins import numbers
from tf_rule import DATA, published_arrays, write_bundle
from typer.testing import CliRunner

from hdrcli import cards, codecs, nets, zoo
from hdrcli.cli.main import app
from hdrcli.color import Float32

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path / "models"))


def hdr(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def write_png(path: Path, rgb: NDArray[np.generic]) -> Path:
    assert cv2.imwrite(str(path), rgb[..., ::-1] if rgb.ndim == 3 else rgb)
    return path


def expanded(folder: Path, rgb: NDArray[np.generic], model: str, *options: object) -> Float32:
    """What `hdr expand` writes for a picture: (H, W, 3) linear RGB."""
    source, target = write_png(folder / "picture.png", rgb), folder / "picture.exr"
    hdr("expand", source, "-o", target, "--model", model, "--float", "--overwrite", *options)
    return codecs.read(target).pixels


def report(name: str, found: Float32, expected: Float32, *, rtol: float, atol: float) -> None:
    print(f"{name}: largest difference {np.abs(found - expected).max():.2e} of {np.abs(expected).max():.3g}")
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=name)


def test_hdrcnn_with_gamma_and_scaling(tmp_path: Path) -> None:
    arrays = list(published_arrays("hdrcnn").values())
    content = np.empty(len(arrays), object)
    content[:] = arrays
    np.savez(tmp_path / "hdrcnn_params.npz", params=content)
    hdr("models", "import", "hdrcnn", tmp_path / "hdrcnn_params.npz", "--name", "theirs")
    fixture = numbers(DATA / "hdrcnn.npz")
    picture = np.rint(fixture["input"][0] * 255).astype(np.uint8)
    for gamma in (1.0, 1.2):
        for scaling in (1.0, 1.25):
            found = expanded(tmp_path, picture, "theirs", "--gamma", gamma, "--scaling", scaling)
            expected = fixture[f"final/gamma{gamma}/scaling{scaling}"][0]
            report(f"hdrcnn gamma {gamma} scaling {scaling}", found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("iterations", [1, 2])
def test_fhdr_in_rgb_and_without_a_stretch(tmp_path: Path, iterations: int) -> None:
    state = {f"module.{name}": torch.from_numpy(array) for name, array in published_arrays("fhdr").items()}
    torch.save(state, tmp_path / "theirs.ckpt", _use_new_zipfile_serialization=False)
    setting = f"iterations={iterations}"
    hdr("models", "import", "fhdr", tmp_path / "theirs.ckpt", "--name", "theirs", "--set", setting)
    fixture = numbers(DATA / "fhdr.npz")
    picture = np.rint((fixture["a/input"][0].transpose(1, 2, 0) + 1) / 2 * 65535).astype(np.uint16)
    bgr = (fixture[f"a/out{iterations - 1}"][0].transpose(1, 2, 0) + 1) / 2
    found = expanded(tmp_path, picture, "theirs")
    report(f"fhdr {iterations} iterations, 16-bit input", found, bgr[..., ::-1], rtol=0, atol=2e-4)


@pytest.mark.shared_data
def test_singlehdr_with_its_mirrored_border(tmp_path: Path, shared_data: Path) -> None:
    parity = shared_data.parent / "parity"
    prefix = write_bundle(tmp_path / "ckpt" / "model.ckpt", published_arrays("singlehdr"))
    emor = ("--emor", parity / "invemor.txt")
    hdr("models", "import", "singlehdr", prefix.parent, "--name", "theirs", "--set", "refine=true", *emor)
    pictures = numbers(DATA / "singlehdr_pipeline.npz")
    found = expanded(tmp_path, pictures["p2/rgb8"], "theirs")
    expected = pictures["p2/refinement_bgr_to_imwrite"][..., ::-1]
    report("singlehdr with refinement, 64x128", found, np.maximum(expected, 0), rtol=0, atol=5e-4)


def test_hdrisp_on_a_native_ten_bit_mosaic(tmp_path: Path) -> None:
    state = {f"module.{name}": torch.from_numpy(array) for name, array in published_arrays("hdrisp").items()}
    torch.save(state, tmp_path / "theirs.pth")
    hdr("models", "import", "hdrisp", tmp_path / "theirs.pth", "--name", "theirs")
    planes = np.rint(numbers(DATA / "hdrisp.npz")["b/input"][0] * 1020)
    mosaic = np.zeros((192, 256), np.uint16)
    for plane, (row, column) in zip(planes, ((1, 1), (0, 1), (0, 0), (1, 0)), strict=True):
        mosaic[row::2, column::2] = plane
    source = write_png(tmp_path / "mosaic.png", mosaic)
    hdr("develop", source, "-o", tmp_path / "out.png", "--model", "theirs", "--sensor", "native")
    with torch.inference_mode():
        expected = zoo.load("theirs").network(torch.from_numpy(planes[None] / 1020).float(), {})
    found = codecs.read(tmp_path / "out.png").pixels
    rounded = np.rint(expected[0].permute(1, 2, 0).numpy() * 255) / 255
    levels = np.abs(found - rounded).max() * 255
    assert levels <= 1.01, f"off by {levels:.1f} levels of 255"
    assert (np.abs(found - rounded) * 255 < 0.5).mean() > 0.999


@pytest.mark.parametrize("net", sorted(set(nets.names()) - {"lumen", "lumenraw"}))
def test_deliberate_differences_are_listed(net: str) -> None:
    spec = nets.spec(net)
    assert spec.deviations and spec.reference and spec.paper, f"{net} does not say how it differs, from what"
