"""SingleHDR against the authors' own code, its tiled curve, and the import of their checkpoints."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from probe import randomize, reach
from standins import numbers
from tf_rule import DATA, difference, planes, published_arrays, slim_arrays, write_bundle
from torch import Tensor

from hdrcli.errors import UsageError, WeightsError
from hdrcli.nets import singlehdr, spec
from hdrcli.nets._autoencoder import highlight_mask
from hdrcli.nets._tf import max_pool_same, same_pad
from hdrcli.nets._tf_checkpoint import by_name, fit
from hdrcli.nets.singlehdr import (
    FEATURE_REACH,
    LAYERS,
    MASK_RAMP,
    U_NET_REACH,
    SingleHdr,
    apply_curve,
    curve_evidence,
    increasing,
    read_invemor,
)
from hdrcli.tiling import Tiling, crop, pad

Fixture = dict[str, NDArray[np.float32]]

TOLERANCES = {
    "C_pred": 5e-6,
    "deq_raw": 5e-6,
    "lin_in": 5e-5,
    "lin_pool1": 5e-5,
    "feature": 1e-5,
    "pca_w": 2e-5,
    "invcrf_before_increase": 2e-6,
    "invcrf": 1e-4,
    "B_pred": 1e-4,
    "alpha": 1e-3,
    "hal_raw": 2e-4,
    "y_predict": 2e-4,
    "A_pred": 5e-4,
    "ref_raw": 5e-4,
    "refined": 5e-4,
}


@pytest.fixture(scope="module")
def fixture() -> Fixture:
    return numbers(DATA / "singlehdr.npz")


@pytest.fixture(scope="module")
def network() -> SingleHdr:
    """With the authors' architecture and the weights of the rule, but still this project's own curve basis."""
    network = SingleHdr()
    own_basis = {f"response.{name}": buffer.numpy() for name, buffer in network.response.named_buffers()}
    named = by_name(published_arrays("singlehdr"), LAYERS) | own_basis
    network.load_state_dict(fit(network, named, "the rule"))
    return network.eval()


@pytest.fixture(scope="module")
def with_emor(network: SingleHdr, shared_data: Path) -> SingleHdr:
    mean, basis = read_invemor(shared_data.parent / "parity" / "invemor.txt")
    network.response.mean.copy_(torch.from_numpy(mean))
    network.response.basis.copy_(torch.from_numpy(basis))
    return network


def _check(name: str, found: Tensor, expected: NDArray[np.float32]) -> None:
    worst = difference(found, expected) if found.ndim == 4 else float(np.abs(found.numpy() - expected).max())
    print(f"singlehdr {name}: {worst:.2e} of {float(np.abs(expected).max()):.3g}")
    assert worst <= TOLERANCES[name.rpartition("/")[2]], f"{name}: off by {worst:.2e}"


@pytest.mark.parity
def test_size(network: SingleHdr) -> None:
    arrays = [value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")]
    curves = 1024 * (1 + 11)
    expected = 1_999_779 + 1_202_368 + 5_643 + 24_573_092 + 1_266_947
    assert (len(arrays) - 2, sum(value.numel() for value in arrays) - curves) == (249, expected)


@pytest.mark.parity
@torch.inference_mode()
def test_every_stage_alone(network: SingleHdr, fixture: Fixture) -> None:
    """Each stage is given what the authors' code gave the one before, so that a fault shows where it is."""
    ldr = planes(fixture["a/ldr"])
    _check("a/deq_raw", ldr + network.dequantization(ldr).tanh(), fixture["a/deq_raw"])
    encoded = planes(fixture["a/C_pred"])
    _check("a/C_pred", network.dequantize(ldr), fixture["a/C_pred"])
    evidence = curve_evidence(encoded)
    _check("a/lin_in", evidence[:, :, ::4, ::4], fixture["a/lin_in"])
    stem = F.relu(network.features.stem_norm(network.features.stem(same_pad(evidence, 7, 2))))
    _check("a/lin_pool1", max_pool_same(stem, 3, 2)[:, :, ::2, ::2], fixture["a/lin_pool1"])
    feature = network.features(evidence).mean((2, 3))
    _check("a/feature", feature, fixture["a/feature"])
    _check("a/pca_w", network.response.coefficients(feature), fixture["a/pca_w"])
    curve = torch.from_numpy(fixture["a/invcrf"])
    _check("a/invcrf", increasing(torch.from_numpy(fixture["a/invcrf_before_increase"])), fixture["a/invcrf"])
    linear = planes(fixture["a/B_pred"])
    _check("a/B_pred", apply_curve(encoded, curve), fixture["a/B_pred"])
    _check("a/alpha", highlight_mask(linear, MASK_RAMP), fixture["a/alpha"])
    _check("a/hal_raw", network.hallucination(linear), fixture["a/hal_raw"])
    light = planes(fixture["a/A_pred"])
    refined = light + network.refinement(torch.cat((light, linear, encoded), 1))
    _check("a/ref_raw", refined, fixture["a/ref_raw"])
    _check("a/refined", refined.relu(), fixture["a/refined"])


@pytest.mark.parity
@torch.inference_mode()
def test_pictures_of_a_batch(network: SingleHdr, fixture: Fixture) -> None:
    encoded = network.dequantize(planes(fixture["b/ldr"]))
    curve = torch.from_numpy(fixture["b/invcrf"])
    _check("b/C_pred", encoded, fixture["b/C_pred"])
    _check("b/B_pred", apply_curve(encoded, curve), fixture["b/B_pred"])
    _check("b/refined", network(planes(fixture["b/ldr"]), {"curve": curve}), fixture["b/refined"])


@pytest.mark.parity
@pytest.mark.shared_data
@pytest.mark.parametrize("case", ["a", "b"])
@torch.inference_mode()
def test_all_stages_in_a_row(with_emor: SingleHdr, fixture: Fixture, case: str) -> None:
    response = with_emor.response
    ldr = planes(fixture[f"{case}/ldr"])
    coefficients = torch.from_numpy(fixture[f"{case}/pca_w"])
    before = response.mean + coefficients @ response.basis.T
    _check(f"{case}/invcrf_before_increase", before, fixture[f"{case}/invcrf_before_increase"])
    context = with_emor.prepare(ldr)
    _check(f"{case}/invcrf", context["curve"], fixture[f"{case}/invcrf"])
    linear = apply_curve(with_emor.dequantize(ldr), context["curve"])
    _check(f"{case}/B_pred", linear, fixture[f"{case}/B_pred"])
    light = F.relu(with_emor.hallucination(linear))
    _check(f"{case}/y_predict", light, fixture[f"{case}/y_predict"])
    _check(f"{case}/A_pred", linear + highlight_mask(linear, MASK_RAMP) * light, fixture[f"{case}/A_pred"])
    _check(f"{case}/refined", with_emor(ldr, context), fixture[f"{case}/refined"])


@pytest.mark.parity
@pytest.mark.shared_data
@pytest.mark.parametrize("picture", ["p2", "p3"])
@pytest.mark.parametrize("script", ["real", "refinement"])
@torch.inference_mode()
def test_whole_scripts(with_emor: SingleHdr, picture: str, script: str) -> None:
    """With the authors' resizing around it, which is theirs alone, the network gives what their scripts write."""
    pictures = numbers(DATA / "singlehdr_pipeline.npz")
    rgb = pictures[f"{picture}/rgb8"].astype(np.float32) / 255
    height, width = rgb.shape[:2]
    enlarged = tuple(-(-size // 64) * 64 for size in (width, height))
    fits = enlarged == (width, height)
    image = planes((rgb if fits else cv2.resize(rgb, enlarged, interpolation=cv2.INTER_CUBIC))[None])
    refinement = with_emor.refinement
    try:
        with_emor.refinement = refinement if script == "refinement" else None
        output = with_emor.whole(pad(image, with_emor.tiling))
    finally:
        with_emor.refinement = refinement
    cropped = crop(output, with_emor.tiling, *image.shape[2:])[0].permute(1, 2, 0).numpy()
    found = cropped if fits else cv2.resize(cropped, (width, height), interpolation=cv2.INTER_CUBIC)
    worst = float(np.abs(found[..., ::-1] - pictures[f"{picture}/{script}_bgr_to_imwrite"]).max())
    print(f"singlehdr {picture} {script}: {worst:.2e}")
    assert worst <= 5e-4, f"off by {worst:.2e}"


@pytest.fixture
def tiny() -> SingleHdr:
    network = SingleHdr(width=4).double()
    randomize(network)
    return network


@torch.inference_mode()
def test_curve_is_independent_of_tiles(tiny: SingleHdr, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 3, 448, 32, dtype=torch.float64)
    features = tiny.features(curve_evidence(tiny.dequantize(image)))
    whole = tiny.response(features.mean((2, 3)))
    for tile in (32, 96):
        smaller = Tiling(multiple_of=16, halo=singlehdr.PREPARE_TILING.halo, tile=tile)
        monkeypatch.setattr(singlehdr, "PREPARE_TILING", smaller)
        torch.testing.assert_close(tiny.prepare(image)["curve"], whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("part", "claimed", "channels", "lattice"),
    [("dequantization", U_NET_REACH, 3, 16), ("refinement", U_NET_REACH, 9, 16), ("features", FEATURE_REACH, 102, 8)],
)
@torch.inference_mode()
def test_reach_of_parts(tiny: SingleHdr, part: str, claimed: int, channels: int, lattice: int) -> None:
    """The halo is the sum of the parts' reaches: the chain of them all fades too much to be felt to its end.

    Positive weights without biases on a black picture: whatever arrives, however faint, is not zero.
    """
    network = tiny.get_submodule(part)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        value.copy_(torch.zeros_like(value) if name.endswith(("bias", "running_mean")) else value.abs())
    found = set()
    for shape, axis in (((1, channels, 224, 32), 2), ((1, channels, 32, 224), 3)):
        image = torch.zeros(shape, dtype=torch.float64)
        found.add(reach(network, image, axis, margin=32, lattice=lattice, noise=0))
    assert found == {claimed}


@torch.inference_mode()
def test_curve_rises_from_black_to_white(tiny: SingleHdr) -> None:
    curve = tiny.response(torch.randn(5, 32, dtype=torch.float64) * 10)
    assert (curve[:, 0] == 0).all() and (curve.diff(dim=1) >= 0).all()
    torch.testing.assert_close(curve[:, -1], torch.ones(5, dtype=torch.float64))


def test_half_precision_leaves_the_curve_alone(tiny: SingleHdr) -> None:
    network = tiny.float()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        context = network.prepare(torch.rand(1, 3, 64, 64))
        assert context["curve"].dtype == torch.float32
        assert network(torch.ones(1, 3, 32, 32), context).dtype == torch.float32


@pytest.mark.parametrize("width", [0, 6])
def test_width_is_checked(width: int) -> None:
    with pytest.raises(UsageError):
        SingleHdr(width=width)


@pytest.fixture
def invemor(tmp_path: Path) -> Path:
    """A file of the EMoR model's form: curve k holds k, k + 1/4096, ..."""
    path = tmp_path / "invemor.txt"
    tags = ["B = ", "g0 = ", *(f"hinv({k})=" for k in range(1, 26))]
    rows = [f"{k + i / 1024:.6e}" for k in range(len(tags)) for i in range(1024)]
    lines = []
    for k, tag in enumerate(tags):
        lines += [tag, *("   ".join(rows[at : at + 4]) for at in range(1024 * k, 1024 * (k + 1), 4))]
    path.write_text("\n".join(lines))
    return path


def _import(paths: list[Path], **build: Any) -> dict[str, Tensor]:
    return spec("singlehdr").importers["tensorflow-checkpoint"](paths, {"width": 4, **build})


def test_import_of_the_fine_tuned_network(tmp_path: Path, invemor: Path) -> None:
    arrays = slim_arrays("singlehdr")
    slots = {f"{name}/Adam": np.full_like(array, np.nan) for name, array in arrays.items()}
    prefix = write_bundle(tmp_path / "model.ckpt", arrays | slots | {"beta1_power": np.array(0.9, np.float32)})
    network = SingleHdr(width=4)
    for state in (_import([prefix, invemor]), _import([prefix], emor=invemor)):
        network.load_state_dict(state)
        first = arrays["Refinement_Net/conv2d/kernel"]
        np.testing.assert_array_equal(state["refinement.down.0.0.0.weight"], first.transpose(3, 2, 0, 1))
        up = arrays["Dequantization_Net/conv2d_13/kernel"]
        np.testing.assert_array_equal(state["dequantization.up.1.after.weight"], up.transpose(3, 2, 0, 1))
        variance = arrays["crf_feature_net/bn3a_branch2a/BatchNorm/moving_variance"]
        np.testing.assert_array_equal(state["features.blocks.3.reduce.1.running_var"], variance)
        dense = arrays["ae_invcrf_decode_net/dense/kernel"]
        np.testing.assert_array_equal(state["response.coefficients.weight"], dense.T)
        assert state["response.mean"][4] == pytest.approx(1 + 4 / 1024)
        assert state["response.basis"][0].tolist() == pytest.approx([k + 1 for k in range(1, 12)])


def test_import_of_separate_networks(tmp_path: Path, invemor: Path) -> None:
    arrays = slim_arrays("singlehdr")
    groups = {"deq": "Dequantization_Net", "lin": ("crf_feature_net", "ae_invcrf"), "hal": "Hallucination_Net"}
    folders = [
        write_bundle(
            tmp_path / folder / "model.ckpt", {name: a for name, a in arrays.items() if name.startswith(scope)}
        ).parent
        for folder, scope in groups.items()
    ]
    SingleHdr(width=4, refine=False).load_state_dict(_import([*folders, invemor], refine=False))
    with pytest.raises(WeightsError, match="no Refinement-Net"):
        _import([*folders, invemor])
    with pytest.raises(WeightsError, match=r"hallucination\.encoder\.0\.0\.weight is missing.*more"):
        _import([*folders[:2], invemor], refine=False)
    with pytest.raises(WeightsError, match=r"\(1, 3, 7, 7\) instead of \(16, 3, 7, 7\)"):
        _import([*folders, invemor], refine=False, width=64)
    with pytest.raises(WeightsError, match="curve file"):
        _import([*folders], refine=False)


def test_damaged_curve_file(tmp_path: Path, invemor: Path) -> None:
    whole = invemor.read_text()
    for text in (whole[: len(whole) // 3], whole.replace("g0", "f0"), "", whole.replace("e+00", "e+ 00", 2000)):
        invemor.write_text(text)
        with pytest.raises(WeightsError) as caught:
            read_invemor(invemor)
        assert caught.value.hint
