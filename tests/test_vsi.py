"""Our VSI equals an independent implementation, on 8-bit values and on values above 255 such as those of PU21."""

import numpy as np
import pytest

from hdrcli.metrics import hanji, pu
from hdrcli.metrics.vsi import saliency, vsi

# Computed once with piq 0.8.0 (Apache 2.0) in double precision, data_range 255, for the pictures of `pair`.
PIQ = {
    (120, 160, 1, 1.0): 0.9318262532868313,
    (120, 160, 1, 2.2): 0.8628520179438459,
    (300, 256, 2, 1.0): 0.9114608451464022,
    (300, 256, 2, 2.2): 0.808622622116555,
    (700, 900, 3, 1.0): 0.989704230253866,
    (700, 900, 3, 2.2): 0.9647438241721703,
}


def pair(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth coloured picture with a disc in it, and the same with noise, in whole codes of 0 to 255."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [0.5 + 0.4 * np.sin(9 * x + 4 * y), 0.45 + 0.4 * np.cos(7 * y * x + 2), 0.5 + 0.3 * np.sin(12 * (x - y))]
    disc = ((x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.02)[..., None] * np.array([0.3, -0.2, -0.3])
    clean = np.stack(waves, axis=-1) + disc
    noisy = clean + np.random.default_rng(seed).normal(0, 0.06, clean.shape)
    return tuple((np.clip(picture, 0, 1) * 255).astype(np.float32) for picture in (clean, noisy))


@pytest.mark.parametrize("case", PIQ, ids=str)
def test_vsi_equals_piq(case: tuple[int, int, int, float]) -> None:
    *shape, scale = case
    clean, noisy = (picture * np.float32(scale) for picture in pair(*shape))
    assert vsi(noisy, clean) == pytest.approx(PIQ[case], abs=2e-6)


def test_equal_pictures_score_one_and_the_order_does_not_matter() -> None:
    clean, noisy = pair(90, 110, 4)
    assert vsi(clean, clean) == pytest.approx(1, abs=1e-6)
    assert vsi(clean, noisy) == pytest.approx(vsi(noisy, clean), abs=1e-6)


def test_saliency_is_a_map_from_0_to_1_of_the_pictures_size() -> None:
    found = saliency(pair(100, 70, 5)[0])
    assert found.shape == (100, 70)
    assert found.min() == 0 and found.max() == pytest.approx(1, abs=1e-6)


def test_pu_values_go_in_as_they_are() -> None:
    """Brought down to 0..255 first, the same pictures would score higher: the trap of PU21-VSI."""
    clean, noisy = (picture / 60 for picture in pair(128, 128, 6))
    expected = vsi(pu.pu21(203 * noisy), pu.pu21(203 * clean))
    assert hanji.pu_vsi(noisy, clean) == pytest.approx(expected, abs=1e-6)
    scaled = vsi(pu.pu21(203 * noisy) * np.float32(255 / 595), pu.pu21(203 * clean) * np.float32(255 / 595))
    assert scaled > expected + 0.002
