"""expand: the settings as formulas, what is refused, what is told, and library use."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins import known_model

import hdrcli
from hdrcli import codecs
from hdrcli.color import DISPLAY_P3
from hdrcli.errors import ReadError, UsageError
from hdrcli.image import Image, Metadata, Transfer
from hdrcli.infer import Compute
from hdrcli.tasks.expand import expand, expand_image

MODEL = known_model("expand")


def picture(top: float = 1.0) -> Image:
    pixels = np.linspace(0, top, 20 * 30 * 3, dtype=np.float32).reshape(20, 30, 3)
    return Image(pixels, Transfer.SRGB, meta=Metadata(source="x.jpg", exif=b"kept"))


@given(st.floats(0.5, 3), st.floats(0.25, 4), st.floats(-6, 6))
def test_settings_are_the_formula(gamma: float, scaling: float, ev: float) -> None:
    made = expand_image(MODEL, picture(), gamma=gamma, scaling=scaling, ev=ev, compute=Compute())
    x = picture().pixels.astype(np.float64)
    expected = (np.minimum(1, scaling * x) ** (1 / gamma)) ** 2.0**1
    expected = expected**gamma * 2**ev
    np.testing.assert_allclose(made.image.pixels, expected, rtol=2e-4, atol=1e-6 * 2**ev)
    assert made.image.transfer == Transfer.LINEAR


def test_metadata_stays_and_the_making_is_recorded() -> None:
    meta = expand(picture(), model=MODEL, gamma=1.2, ev=-1).meta
    assert (meta.exif, meta.source) == (b"kept", "x.jpg")
    assert meta.extra == {
        "hdr:model": "known",
        "hdr:sha256": "0" * 64,
        "hdr:version": hdrcli.__version__,
        "hdr:gamma": "1.2",
        "hdr:scaling": "1",
        "hdr:ev": "-1",
        "hdr:denoise": "1",
        "hdr:white_nits": "203",
    }


def test_nothing_clipped_is_told() -> None:
    assert any("nothing to reconstruct" in note for note in expand(picture(0.9), model=MODEL).meta.notes)
    assert not expand(picture(1.0), model=MODEL).meta.notes
    assert not expand(picture(0.9), model=MODEL, scaling=1.2).meta.notes, "the gain clips it"


def test_linear_light_is_refused() -> None:
    with pytest.raises(ReadError, match=r"x\.jpg is already HDR"):
        expand(replace(picture(), transfer=Transfer.LINEAR), model=MODEL)


@pytest.mark.parametrize("values", [{"gamma": 0}, {"gamma": -1}, {"scaling": 0}, {"gamma": np.nan}, {"ev": np.inf}])
def test_settings_that_make_no_sense(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        expand(picture(), model=MODEL, **values)


def test_model_of_another_task_is_refused() -> None:
    with pytest.raises(UsageError, match="for develop, not for expand"):
        expand(picture(), model=known_model("develop"))


def test_arrays_files_and_bytes_give_the_same(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    path = tmp_path / "x.png"
    codecs.write(Image(codes / np.float32(255), Transfer.SRGB), path, "png")
    of_array = expand(codes, model=MODEL).pixels
    np.testing.assert_allclose(of_array, (codes / 255.0) ** 2, atol=1e-6)
    for source in (path, str(path), path.read_bytes(), codes.astype(np.uint16) * 257, codes / 255.0):
        np.testing.assert_allclose(expand(source, model=MODEL).pixels, of_array, atol=1e-6)


@pytest.mark.parametrize("array", [np.full((4, 4, 3), 1.5), np.full((4, 4, 3), -1), np.full((4, 4, 3), np.nan)])
def test_arrays_that_are_no_picture(array: np.ndarray) -> None:
    with pytest.raises(ReadError):
        expand(array, model=MODEL)


def test_wider_primaries_are_converted() -> None:
    grey = np.full((8, 8, 3), 0.5, np.float32)
    red = grey * np.array([1.6, 0.5, 0.5], np.float32)
    for pixels in (grey, red):
        wide = expand(Image(pixels, Transfer.SRGB, DISPLAY_P3), model=MODEL).pixels
        plain = expand(Image(pixels, Transfer.SRGB), model=MODEL).pixels
        if pixels is grey:
            np.testing.assert_allclose(wide, plain, atol=1e-5)
        else:
            assert np.all(wide[..., 0] > plain[..., 0]), "the same numbers mean a redder red in Display P3"
            assert np.all(wide[..., 1] < plain[..., 1])


def test_library_use_is_lazy_and_complete() -> None:
    assert hdrcli.expand is expand
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hdrcli.nothing  # noqa: B018
