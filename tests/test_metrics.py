"""Scores agree with published values and with what a number of that name must do."""

import numpy as np
import pytest

from hdrcli.metrics import pictures, pu


@pytest.mark.parametrize(("nits", "expected"), [(0.005, 0.0), (100.0, 256.0), (10000.0, 595.394)])
def test_pu21_agrees_with_published_values(nits: float, expected: float) -> None:
    assert float(pu.pu21(np.array([nits]))[0]) == pytest.approx(expected, abs=0.6)


def test_pu21_rises() -> None:
    assert (np.diff(pu.pu21(np.geomspace(0.005, 10000, 500))) > 0).all()


def test_the_gain_is_found_whatever_the_clipped_pixels_say() -> None:
    rng = np.random.default_rng(0)
    reference = rng.lognormal(0, 1, (30, 40, 3)).astype(np.float32)
    clipped = reference.max(axis=2) > 3
    prediction = reference / 1.7
    prediction[clipped] = 1
    assert pu.gain(prediction, reference, ~clipped) == pytest.approx(1.7, rel=1e-5)


def test_stops_counts_doublings() -> None:
    reference = np.full((8, 8, 3), 2.0, np.float32)
    assert pu.stops(reference / 4, reference, np.ones((8, 8), bool)) == pytest.approx(2.0, abs=1e-5)


def test_psnr_of_a_known_error() -> None:
    picture = np.full((16, 16, 3), 0.5, np.float32)
    assert pictures.psnr(picture + np.float32(0.1), picture) == pytest.approx(20.0, abs=1e-4)


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    rng = np.random.default_rng(1)
    picture = rng.random((40, 50, 3), np.float32)
    noisy = [np.clip(picture + rng.normal(0, s, picture.shape), 0, 1).astype(np.float32) for s in (0.05, 0.3)]
    assert pictures.ssim(picture, picture) == pytest.approx(1.0, abs=1e-9)
    assert 1 > pictures.ssim(noisy[0], picture) > pictures.ssim(noisy[1], picture) > 0


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = pictures.lab(np.array([[rgb]], np.float32))[0, 0]
    np.testing.assert_allclose(found, expected, atol=0.03)
