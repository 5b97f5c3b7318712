"""Scores of finished pictures: colour differences and multi-scale similarity."""

import numpy as np
import pytest

from hdrcli.metrics import pictures


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [  # of the published test data of Sharma, Wu and Dalal 2005
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0010), 7.1792),
        ((50, -0.001, 2.49), (50, 0.0010, -2.49), 4.8045),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((36.4612, 47.8580, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_agrees_with_the_published_pairs(first: tuple, second: tuple, expected: float) -> None:
    assert float(pictures.ciede2000(np.array(first), np.array(second))) == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_says_when_a_picture_is_too_small() -> None:
    picture = np.random.default_rng(3).random((64, 48, 3)).astype(np.float32)
    assert pictures.ms_ssim(picture, picture) == pytest.approx(1)
    assert np.isnan(pictures.ms_ssim(picture[:12], picture[:12]))
