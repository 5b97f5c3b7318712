"""Tone-mapping operators: their range, the laws they obey, and numbers worked out by hand."""

import cv2
import numpy as np
import pytest

from hdrcli.color import luminance, srgb_decode, srgb_encode
from hdrcli.tonemap import OPERATORS
from hdrcli.tonemap.filmic import filmic
from hdrcli.tonemap.fusion import EXPOSURES, fusion
from hdrcli.tonemap.reinhard import key_gain, reinhard


def scene() -> np.ndarray:
    """Twelve stops from left to right, tinted, a mid-grey geometric mean."""
    ramp = 0.18 * 2.0 ** np.linspace(-6, 6, 240, dtype=np.float32)
    return np.broadcast_to(ramp[None, :, None], (48, 240, 3)) * np.array([1.1, 1.0, 0.8], np.float32)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_gives_a_picture_that_rises_with_the_light(name: str) -> None:
    mapped = OPERATORS[name](scene())
    assert (mapped.shape, mapped.dtype) == ((48, 240, 3), np.float32)
    assert 0 <= mapped.min() <= mapped.max() <= 1
    tones = mapped.mean(axis=(0, 2))
    assert tones[-1] - tones[0] > 0.3
    if name != "fusion":  # local contrast need not rise everywhere
        assert np.all(np.diff(tones) >= -1e-6)


@pytest.mark.parametrize("name", OPERATORS)
def test_darkness_and_values_below_zero_are_taken(name: str) -> None:
    for value in (0.0, -0.01):
        mapped = OPERATORS[name](np.full((32, 32, 3), value, np.float32))
        assert np.isfinite(mapped).all()
        assert mapped.max() < 0.02


def test_none_is_plain_encoding() -> None:
    linear = scene()
    np.testing.assert_array_equal(OPERATORS["none"](linear), srgb_encode(np.clip(linear, 0, 1)))


def test_reinhard_does_not_depend_on_the_scale_of_the_scene() -> None:
    np.testing.assert_allclose(reinhard(scene() * 100), reinhard(scene()), atol=1e-4)
    assert key_gain(np.full((4, 4, 3), 0.09, np.float32)) == pytest.approx(2)


def test_reinhard_by_hand() -> None:
    """Half the picture at 0.045, half at 0.72: the mean is 0.18, so nothing is scaled and white is 0.72."""
    linear = np.full((2, 2, 3), 0.045, np.float32)
    linear[1] = 0.72
    light = luminance(srgb_decode(reinhard(linear)))
    assert light[0, 0] == pytest.approx(0.045 * (1 + 0.045 / 0.72**2) / 1.045, rel=1e-3)
    assert light[1, 0] == pytest.approx(1, rel=1e-3), "white becomes white"


def test_filmic_by_hand() -> None:
    def curve(x: float) -> float:
        return (x * (0.15 * x + 0.05) + 0.004) / (x * (0.15 * x + 0.5) + 0.06) - 0.02 / 0.30

    for value, expected in ((0.0, 0.0), (0.18, curve(0.36) / curve(11.2)), (5.6, 1.0), (50.0, 1.0)):
        found = srgb_decode(filmic(np.full((1, 1, 3), value, np.float32)))
        assert found[0, 0, 0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(600, 701), (131, 258), (33, 16), (4, 9)])
def test_fusion_in_tiles_gives_the_numbers_of_opencv(size: tuple[int, int]) -> None:
    """A scene of blobs, edges and grain over twelve stops, whole by OpenCV."""
    random = np.random.default_rng(0)
    blobs = cv2.resize(random.normal(size=(7, 9, 3)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0, 0.1, (*size, 3)).astype(np.float32)
    linear = (0.18 * 2 ** (2 * blobs + grain)).astype(np.float32)
    linear[size[0] // 3 :, : size[1] // 2] *= 8
    brackets = [255 * srgb_encode(np.clip(linear * np.float32(2.0**ev), 0, 1)) for ev in EXPOSURES]
    expected = np.clip(cv2.createMergeMertens().process(brackets), 0, 1)
    error = np.abs(fusion(linear) - expected)
    assert np.sqrt(np.mean(error**2)) < 10 ** (-60 / 20), f"{error.max():.2g} at most"
    assert np.mean(error < 1e-4) > 0.999
