"""Scores against numbers of the authors' own code, and what holds for any picture."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from standins import numbers
from tf_rule import DATA
from torch import Tensor

from hdrcli.metrics import mulaw
from hdrcli.metrics.similarity import ms_ssim, ms_ssim_terms, psnr, ssim, ssim_uniform

WEIGHTS = torch.tensor([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


@cache
def _arrays() -> dict[str, NDArray[np.float32]]:
    names = ("losses_raw.npz", "losses_fhdr.npz", "fhdr.npz")
    return {name: array for file in names for name, array in numbers(DATA / file).items()}


def _tensor(name: str) -> Tensor:
    return torch.from_numpy(_arrays()[name])


def _published_ms_ssim(first: Tensor, second: Tensor) -> float:
    """How the authors' code puts it together: means over the batch first, the range guessed anew on each scale."""
    narrow, wide = (ms_ssim_terms(first, second, data_range=data_range) for data_range in (1.0, 2.0))
    terms = []
    for scale in range(5):
        similarity, contrast = wide if first.min() < -0.5 else narrow
        terms.append(similarity[scale].mean() if scale == 4 else contrast[scale].mean())
        first = F.avg_pool2d(first, 2)
    return float((torch.stack(terms) ** WEIGHTS).prod())


@pytest.mark.parity
def test_ms_ssim_equals_the_authors_code() -> None:
    p, q = _tensor("ms/p"), _tensor("ms/q")
    assert float(ms_ssim(p, q, data_range=1)) == pytest.approx(float(_tensor("ms/pq")), abs=1e-5)
    assert float(ms_ssim(q, p, data_range=1)) == pytest.approx(float(_tensor("ms/qp")), abs=1e-5)
    assert float(ssim(p, q, data_range=1)) == pytest.approx(float(_tensor("ms/ssim_pq")), abs=1e-5)
    minus = _published_ms_ssim(2 * p - 1, 2 * q - 1)
    assert minus == pytest.approx(float(_tensor("ms/minus_p")), abs=1e-5)
    small = _published_ms_ssim(_tensor("hist/imgA"), _tensor("ms/small_q"))
    assert small == pytest.approx(float(_tensor("ms/small_imgA_q")), abs=1e-5)


@pytest.mark.parity
def test_ms_ssim_of_a_negative() -> None:
    """The authors' code gives NaN, which would end a training; ours is nearly 0, with a gradient."""
    p = _tensor("ms/p")
    assert np.isnan(float(_tensor("ms/anti"))) and np.isnan(_published_ms_ssim(p, 1 - p))
    negative = (1 - p).requires_grad_()
    score = ms_ssim(p, negative, data_range=1)
    assert 0 <= score.item() < 1e-5
    (gradient,) = torch.autograd.grad(score.sum(), negative)
    assert gradient.isfinite().all()


@pytest.mark.parity
@pytest.mark.parametrize("index", range(4))
def test_mu_law_protocol_equals_the_authors_code(index: int) -> None:
    prediction = _arrays()["b/out3" if index < 2 else "score/near"][index % 2]
    reference = _arrays()["score/gt"][index % 2]
    found = mulaw.scores(*((array.transpose(1, 2, 0) + 1) / 2 for array in (prediction, reference)))
    assert found["psnr_mu"] == pytest.approx(float(_arrays()["score/psnr_mu"][index]), abs=1e-3)
    assert found["ssim_published"] == pytest.approx(float(_arrays()["score/ssim"][index]), abs=1e-6)


@pytest.mark.parity
def test_mu_law_equals_the_authors_code() -> None:
    for found, expected in (("mu/in", "mu/out"), ("b/out3", "score/mu_pred"), ("score/gt", "score/mu_gt")):
        light = (_arrays()[found] + 1) / 2
        np.testing.assert_allclose(mulaw.mu_law(light), _arrays()[expected], rtol=0, atol=1e-6)
    assert mulaw.mu_law(np.float32([-0.5])) == 0


@pytest.mark.parametrize("score", [ssim, ssim_uniform, ms_ssim])
def test_similarity_of_equals_is_one(score: Callable[..., Tensor]) -> None:
    picture = torch.rand(2, 3, 180, 190, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(score(picture, picture, data_range=1), torch.ones(2))
    noisy = picture + 0.1 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(2))
    found = score(noisy, picture, data_range=1)
    assert found.shape == (2,) and found.max() < 0.99
    torch.testing.assert_close(score(255 * noisy, 255 * picture, data_range=255), found, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(score(noisy[1:], picture[1:], data_range=1), found[1:])


def test_similarity_keeps_its_precision_under_autocast() -> None:
    p, q = _tensor("ms/p"), _tensor("ms/q")
    with torch.autocast("cpu", torch.bfloat16):
        found = ms_ssim(p, q, data_range=1)
    assert torch.equal(found, ms_ssim(p, q, data_range=1))


def test_psnr() -> None:
    picture = torch.zeros(2, 3, 4, 4)
    other = picture.clone()
    other[0] = 0.1
    found = psnr(other, picture, data_range=1)
    assert float(found[0]) == pytest.approx(20, abs=1e-5) and float(found[1]) == float("inf")
    assert float(psnr(other, picture, data_range=255)[0]) == pytest.approx(20 + 20 * np.log10(255), abs=1e-4)
