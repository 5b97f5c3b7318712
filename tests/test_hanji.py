"""The response-curve correction takes away what it should and nothing else; the four scores mean what they say."""

import numpy as np
import pytest

from hdrcli.metrics import hanji, pu
from hdrcli.metrics.hanji import _fit, _from_pq, _luminance_uv, _pq, _to_rgb


def scene(seed: int = 0, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.lognormal(-1.5, 1.2, shape)[..., None] * rng.uniform(0.7, 1.3, (*shape, 3))).astype(np.float32)


def test_pq_agrees_with_the_standard() -> None:
    """ST 2084: 100 cd/m2 is 0.508078, 203 is 0.580689 (BT.2408), 1000 is 0.751827, 10000 is 1."""
    nits = np.array([100.0, 203.0, 1000.0, 10000.0])
    np.testing.assert_allclose(_pq(nits), [0.508078, 0.580689, 0.751827, 1.0], atol=1e-6)
    np.testing.assert_allclose(_from_pq(_pq(nits)), nits, rtol=1e-9)


def test_luminance_and_chromaticity_come_back() -> None:
    light = scene()
    found = _luminance_uv(light)
    back = _to_rgb(found[0], found[1:]).reshape(light.shape) / pu.WHITE
    np.testing.assert_allclose(back, light, rtol=2e-3, atol=1e-5)


def test_the_fit_has_twenty_parameters_and_recovers_a_cubic() -> None:
    codes = np.linspace(0.05, 0.9, 500)[None]
    bent = 0.02 + 0.7 * codes + 0.5 * codes**2 - 0.3 * codes**3
    np.testing.assert_allclose(_fit(codes, bent, pull=0.0), bent, atol=1e-9)
    uv = np.random.default_rng(1).uniform(0.2, 0.8, (2, 500))
    np.testing.assert_allclose(_fit(uv, uv, pull=0.01), uv, atol=1e-9)


def test_a_wrong_response_curve_is_forgiven_and_lost_detail_is_not() -> None:
    reference = scene()
    curved = reference ** np.float32(0.8)
    none = np.zeros(reference.shape[:2], bool)
    found = hanji.scores(hanji.align(curved, reference, none), reference, none)
    assert found["pu_psnr_crf"] > found["pu_psnr"] + 10
    cut = np.minimum(reference, 0.3)
    lost = hanji.scores(cut, reference, reference.max(axis=2) > 0.3)
    assert lost["pu_psnr_crf"] < found["pu_psnr_crf"] - 10


def test_correcting_a_perfect_picture_changes_nothing() -> None:
    reference = scene()
    np.testing.assert_allclose(hanji.correct_response(reference, reference), reference, rtol=5e-3, atol=1e-4)


def test_scores_of_clipped_pixels_alone() -> None:
    reference = scene()
    clipped = reference.max(axis=2) > 0.5
    prediction = reference.copy()
    prediction[clipped] *= 2
    found = hanji.scores(hanji.align(prediction, reference, clipped), reference, clipped)
    assert found["stops_clip"] == pytest.approx(1, abs=1e-4)
    assert found["pu_psnr_clip"] < found["pu_psnr"]
    assert found["pu_psnr"] == pytest.approx(pu.pu_psnr(prediction, reference), abs=1e-3)
    assert found["pu_psnr_clip"] == pytest.approx(pu.pu_psnr(prediction, reference, clipped), abs=1e-3)
    nowhere = hanji.scores(prediction, reference, np.zeros_like(clipped))
    assert np.isnan([nowhere[name] for name in ("pu_psnr_clip", "stops_clip", "pu_psnr_crf_clip")]).all()
