"""`hdr train prepare`: RAW files to pairs that a network learns from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from program import write_mosaic

from hdrcli import camera, layouts, scene
from hdrcli.color import srgb_decode
from hdrcli.sensor import Mosaic
from hdrcli.tasks import prepare
from hdrcli.tasks import train as task
from hdrcli.tasks.demo import _SENSOR as SENSOR
from hdrcli.training import data

RECIPE = """
net = "hdrisp"
precision = "fp32"
checks = 1
build = { width = 4 }

[[stages]]
name = "only"
batch = 1
loss = { mse = 1.0 }
options = { size = [32, 48], whole = false }
"""


@pytest.fixture(scope="module")
def recorded() -> tuple[np.ndarray, Mosaic]:
    light = scene.render(192, 128)
    return light, camera.record(light, SENSOR, 0.02, np.random.default_rng(0))


def test_a_mosaic_and_its_picture_show_the_scene(recorded: tuple[np.ndarray, Mosaic]) -> None:
    light, mosaic = recorded
    codes, picture = prepare.mosaic_and_picture(mosaic, "none")
    assert codes.shape == (128, 192) and codes.dtype == np.uint16 and codes.max() <= 1023
    assert np.abs(codes - mosaic.counts).max() <= 1, "the sensor has 10 bits and black at 64, as the pairs have"
    found, wanted = (
        cv2.resize(each, (24, 16), interpolation=cv2.INTER_AREA) for each in (srgb_decode(picture.pixels), light)
    )
    clear = (found.max(axis=2) < 0.9) & (found.min(axis=2) > 0.05)
    stops = np.log2(found[clear] / wanted[clear])
    assert np.ptp(np.median(stops, axis=0)) < 0.1, "colours"
    assert np.median(np.abs(stops - np.median(stops))) < 0.15, "light"


@pytest.mark.parametrize("shape", [(1, 0, 127, 191), (0, 1, 126, 190), (3, 2, 100, 101)])
def test_pairs_have_even_sides_and_one_size(recorded: tuple[np.ndarray, Mosaic], shape: tuple[int, ...]) -> None:
    codes, picture = prepare.mosaic_and_picture(replace(recorded[1], crop=shape), "none")
    assert codes.shape == picture.pixels.shape[:2] and not any(side % 2 for side in codes.shape)


def test_pairs_are_made_kept_and_learned_from(hdr: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write_mosaic(f"raws/{name}.dng")
    Path("raws/broken.dng").write_bytes(b"II*\0 no picture")
    done = hdr("train", "prepare", "raws", "-o", "pairs", "--look", "filmic")
    assert done.code == 1 and "broken.dng" in done.err and "3 written, 1 failed" in done.err
    found = sorted(str(path.relative_to("pairs")) for path in Path("pairs").rglob("*") if path.is_file())
    names = [
        f"{part}/{kind}/{name}.png"
        for part, name in (("test", "a"), ("train", "b"), ("train", "c"))
        for kind in ("groundtruth", "raw")
    ]
    assert found == sorted(names)
    layout = layouts.find(Path("pairs/train"))
    assert layout is not None and layout.kind == "raw-picture"
    planes, target = data.read_raw_pair(*layout.files[0])
    assert planes.shape == (4, 24, 32) and target.shape == (48, 64, 3)

    Path("pairs/train/raw/c.png").unlink()
    Path("raws/broken.dng").unlink()
    again = hdr("train", "prepare", "raws", "-o", "pairs", "--look", "filmic")
    assert again.code == 0 and "1 written, 2 skipped" in again.err

    monkeypatch.setenv("HDR_MODELS_DIR", "trained")
    recipe = (
        'net = "hdrisp"\nchecks = 1\nprecision = "fp32"\nbuild = { width = 4 }\n[[stages]]\nname = "s"\nbatch = 1\n'
    )
    Path("r.toml").write_text(recipe + "loss = { mse = 1.0 }\noptions = { size = [32, 48], whole = false }\n")
    order = task.Order(net="hdrisp", data=Path("pairs"), name="mine", recipe="r.toml", steps=1, folder=Path("trained"))
    assert task.faults(order) == []
    assert task.train(order).training["steps"] == 1


def test_a_pair_that_cannot_be_written_leaves_nothing(hdr: Any, here: Path) -> None:
    for name in "ab":
        write_mosaic(f"raws/{name}.dng")
    Path("pairs/test/raw/a.png").mkdir(parents=True)
    done = hdr("train", "prepare", "raws", "-o", "pairs")
    assert done.code == 1 and "a.png" in done.err
    assert not Path("pairs/test/groundtruth/a.png").exists() and Path("pairs/train/raw/b.png").is_file()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ((), "is no folder"),
        (("x.dng",), "holds 1 RAW files"),
        (("x.dng", "x.nef"), "x.dng and x.nef have one name"),
    ],
)
def test_what_cannot_be_prepared_is_refused(hdr: Any, here: Path, make: tuple[str, ...], says: str) -> None:
    for name in make:
        Path("raws").mkdir(exist_ok=True)
        (Path("raws") / name).write_bytes(b"")
    done = hdr("train", "prepare", "raws", "-o", "pairs")
    assert done.code == 2 and says in done.err and not Path("pairs").exists()


@pytest.mark.shared_data
def test_real_files_of_cameras_become_pairs(shared_data: Path, tmp_path: Path, hdr: Any) -> None:
    for name in ("sample_1mp_rotated.dng", "HERO7_oddsize_497x373_10bit.dng", "HERO7_orient6_498x374_10bit.dng"):
        (tmp_path / name).symlink_to(shared_data / "raw" / name)
    assert hdr("train", "prepare", str(tmp_path), "-o", str(tmp_path / "pairs")).code == 0
    for part in ("train", "test"):
        layout = layouts.find(tmp_path / "pairs" / part)
        assert layout is not None
        for files in layout.files:
            planes, target = data.read_raw_pair(*files)
            green = (planes[1] + planes[3]) / 2
            small = cv2.resize(target[:, :, 1], green.shape[::-1], interpolation=cv2.INTER_AREA)
            assert np.corrcoef(np.sqrt(green.clip(0)).ravel(), small.ravel())[0, 1] > 0.8
