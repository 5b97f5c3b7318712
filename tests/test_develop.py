"""develop: mosaics and RAW files to upright pictures, looks, feeds, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from standins import known_model

import hdrcli
from hdrcli import camera, raw
from hdrcli.color import luminance
from hdrcli.errors import HdrError, ReadError, UsageError
from hdrcli.image import Transfer
from hdrcli.infer import Compute
from hdrcli.sensor import Mosaic
from hdrcli.tasks.develop import develop, develop_mosaic
from hdrcli.tonemap import OPERATORS

LINEAR, FINISHED = known_model("develop"), known_model("develop", gives="srgb")


@pytest.fixture(scope="module")
def mosaic() -> Mosaic:
    """A smooth scene, red to the left and blue at the bottom, recorded without noise at 14 bits."""
    y, x = np.mgrid[0:64, 0:96].astype(np.float32) / 96
    scene = np.stack([1.1 - x, np.full_like(x, 0.5), 0.1 + y], axis=-1)
    sensor = replace(camera.random_sensor(np.random.default_rng(1), bits=14), shot=0.0, read=0.0)
    return camera.record(scene, sensor, 0.001, np.random.default_rng(2))


def test_linear_light_gets_a_look_and_the_colours_are_right(mosaic: Mosaic) -> None:
    image = develop(mosaic, model=LINEAR, look="none")
    assert (image.transfer, image.pixels.shape) == (Transfer.SRGB, (64, 96, 3))
    left, right = image.pixels[8:24, 4], image.pixels[8:24, -4]
    assert np.all(left[:, 0] > right[:, 0] + 0.2), "red lies to the left"
    assert np.all(image.pixels[-4, :, 2] > image.pixels[4, :, 2]), "blue lies at the bottom"


def test_default_look_is_the_fusion(mosaic: Mosaic) -> None:
    images = {look: develop(mosaic, model=LINEAR, look=look).pixels for look in (None, *OPERATORS)}
    np.testing.assert_allclose(images[None], images["fusion"], atol=1e-5)  # OpenCV's sums are not always in one order
    for look in OPERATORS:
        assert 0 <= images[look].min() <= images[look].max() <= 1
        assert look == "fusion" or np.abs(images[look] - images["fusion"]).max() > 0.02, f"{look} is no look of its own"


def test_exposure_is_in_stops_of_light(mosaic: Mosaic) -> None:
    dark, bright = (develop(mosaic, model=LINEAR, look="none", ev=ev).to(Transfer.LINEAR).pixels for ev in (-2, -1))
    inside = (bright > 0.02) & (bright < 0.9)
    np.testing.assert_allclose(bright[inside] / dark[inside], 2, rtol=1e-3)


def test_model_with_its_own_look_takes_no_other(mosaic: Mosaic) -> None:
    assert develop(mosaic, model=FINISHED).meta.extra["hdr:look"] == "learned"
    with pytest.raises(UsageError, match="a look of its own"):
        develop(mosaic, model=FINISHED, look="fusion")


@pytest.mark.parametrize("values", [{"look": "sepia"}, {"ev": float("nan")}])
def test_settings_that_make_no_sense(mosaic: Mosaic, values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        develop(mosaic, model=LINEAR, **values)


def test_native_feed_has_no_white_balance(mosaic: Mosaic) -> None:
    tinted = replace(mosaic, balance=mosaic.balance * np.array([2.0, 1, 1]))
    native = [develop(m, model=LINEAR, sensor="native", look="none").pixels for m in (mosaic, tinted)]
    canonical = [develop(m, model=LINEAR, look="none").pixels for m in (mosaic, tinted)]
    np.testing.assert_array_equal(*native)
    assert np.abs(canonical[0] - canonical[1]).max() > 0.05


@pytest.mark.parametrize(("orientation", "shape"), [(1, (60, 90)), (3, (60, 90)), (6, (90, 60)), (8, (90, 60))])
def test_picture_is_cropped_and_upright(mosaic: Mosaic, orientation: int, shape: tuple[int, int]) -> None:
    turned = replace(mosaic, crop=(2, 4, 60, 90), orientation=orientation)
    assert develop(turned, model=LINEAR).pixels.shape == (*shape, 3)


@pytest.mark.parametrize("look", OPERATORS)
def test_light_beside_the_picture_is_as_bright_in_its_middle(mosaic: Mosaic, look: str) -> None:
    made = develop_mosaic(LINEAR, mosaic, look=look, compute=Compute())
    light, shown = made.partner, made.image.to(Transfer.LINEAR)
    assert light is not None and light.white is not None
    middle = (luminance(shown.pixels) > 0.05) & (luminance(shown.pixels) < 0.5)
    ratio = luminance(shown.pixels)[middle] / luminance(light.pixels)[middle]
    assert np.median(ratio) == pytest.approx(light.white / 203, rel=0.01)
    assert develop_mosaic(FINISHED, mosaic, compute=Compute()).partner is None


def test_library_use_is_lazy() -> None:
    assert hdrcli.develop is develop


@pytest.mark.shared_data
def test_every_real_file_is_developed(shared_data: Path) -> None:
    folder = shared_data / "raw"
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in raw.SUFFIXES)
    small = [path for path in paths if path.stat().st_size < 3_000_000]
    assert len(small) > 10
    for path in small[::2]:
        try:
            image = develop(path, model=LINEAR, look="none")
        except HdrError as error:
            assert path.name == "tiny_16x16_10bit.dng", f"{path.name}: {error}"  # LibRaw takes none below 22 pixels
            continue
        assert np.isfinite(image.pixels).all(), path.name
        assert image.pixels.std() > 0.01, f"{path.name} came out flat"


GREY_PATCHES = {  # of a ColorChecker, as far as it is seen: columns and rows
    "G2_CRW_0304.CRW": [(304, 1292), (644, 1292), (974, 1292), (1313, 1292), (1639, 1292), (1968, 1292)],
    "S40_CRW_0105.CRW": [(178, 1091), (679, 1091), (1252, 1091), (1824, 1091)],
    "Hero7Black_GOPR8508_998_10bit.dng": [(227, 592), (333, 606), (463, 620), (592, 630), (726, 630), (832, 617)],
    "Hero7Black_GOPR8514_998_10bit.dng": [(290, 431), (495, 439), (715, 447), (880, 455), (979, 455)],
}


@pytest.mark.shared_data
@pytest.mark.parametrize("model", ["lumenraw", "hdrisp"])
@pytest.mark.parametrize("name", GREY_PATCHES)
def test_grey_is_grey(name: str, model: str, shared_data: Path) -> None:
    pixels = develop(shared_data / "raw" / name, model=model).pixels
    patches = [pixels[y - 10 : y + 10, x - 10 : x + 10].mean(axis=(0, 1)) for x, y in GREY_PATCHES[name]]
    lab = cv2.cvtColor(np.array([patches], np.float32), cv2.COLOR_RGB2Lab)[0]
    assert len(set(np.sign(np.diff(lab[:, 0])))) == 1, f"these are not the grey patches: L {lab[:, 0].round()}"
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    assert chroma.mean() < 6, f"mean chroma {chroma.mean():.1f} of {chroma.round(1)}"
    print(f"{name}, {model}: mean chroma {chroma.mean():.2f}")


@pytest.mark.shared_data
def test_damaged_files_raise_errors_for_people_only(shared_data: Path) -> None:
    attempts: list[Callable[[], object]] = [
        lambda path=path: develop(path, model=LINEAR, look="none")
        for path in sorted((shared_data / "raw/bad").iterdir())
    ]
    refused = 0
    for attempt in attempts:
        try:
            attempt()
        except ReadError as error:
            refused += 1
            assert error.message
    assert refused >= len(attempts) // 2


def test_a_model_for_the_canonical_sensor_is_fed_that_whatever_was_asked(mosaic: Mosaic) -> None:
    picky = replace(LINEAR, spec=replace(LINEAR.spec, feeds=("canonical",)))
    asked, plain = (develop(mosaic, model=picky, sensor=sensor) for sensor in ("native", "canonical"))
    np.testing.assert_array_equal(asked.pixels, plain.pixels)
    assert any("made for the canonical sensor" in note for note in asked.meta.notes)
    assert not plain.meta.notes
