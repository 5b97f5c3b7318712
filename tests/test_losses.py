"""Training losses against numbers of the authors' own code, and what holds for any picture."""

from functools import cache

import numpy as np
import pytest
import torch
from standins import numbers
from tf_rule import DATA
from torch import Tensor

from hdrcli.losses import hellinger, mu_law, rgb_uv_histogram


@cache
def _expected() -> dict[str, Tensor]:
    names = ("losses_raw.npz", "losses_fhdr.npz")
    return {name: torch.from_numpy(array) for file in names for name, array in numbers(DATA / file).items()}


@pytest.mark.parity
@pytest.mark.parametrize("name", ["A", "B", "E"])
def test_histogram_equals_the_authors_code(name: str) -> None:
    """B runs beyond 0 and 1; E is reduced to 150x150 and has blocks of exact 0 and 1."""
    found = rgb_uv_histogram(_expected()[f"hist/img{name}"])
    torch.testing.assert_close(found, _expected()[f"hist/hist{name}"], rtol=1e-4, atol=1e-8)


@pytest.mark.parity
def test_hellinger_equals_the_authors_code() -> None:
    """Theirs is one root over the batch, divided by its size."""
    a, b = (rgb_uv_histogram(_expected()[f"hist/img{name}"]) for name in "AB")
    distances = hellinger(a, b)
    assert distances.shape == (2,)
    theirs = distances.square().sum().sqrt() / len(distances)
    assert float(theirs) == pytest.approx(float(_expected()["hist/hellinger_target_A_output_B"]), abs=1e-5)


@pytest.mark.parity
def test_mu_law_equals_the_authors_code() -> None:
    """Theirs takes light as 2v - 1."""
    light = (_expected()["mu/in"] + 1) / 2
    torch.testing.assert_close(mu_law(light), _expected()["mu/out"], rtol=0, atol=1e-6)


def test_mu_law_of_less_than_nothing() -> None:
    assert mu_law(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("height", "width"), [(8, 24), (151, 20), (20, 400)])
def test_histogram_is_a_distribution(height: int, width: int) -> None:
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    histogram = rgb_uv_histogram(picture)
    assert histogram.shape == (2, 3, 64, 64) and histogram.min() > 0
    torch.testing.assert_close(histogram.sum(dim=(1, 2, 3)), torch.ones(2))


def test_histogram_knows_no_places() -> None:
    picture = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(rgb_uv_histogram(picture.flip(2).mT), rgb_uv_histogram(picture), rtol=1e-3, atol=1e-7)


def test_one_colour_falls_into_one_bin() -> None:
    """Bins run over the logarithm of red to green and red to blue, from -3 to 3."""
    picture = torch.tensor([0.8, 0.4, 0.2])[None, :, None, None].expand(1, 3, 6, 6)
    row, column = divmod(int(rgb_uv_histogram(picture)[0, 0].argmax()), 64)
    bins = np.linspace(-3, 3, 64)
    assert row == np.abs(bins - np.log(2)).argmin() and column == np.abs(bins - np.log(4)).argmin()


def test_pictures_of_a_batch_do_not_mix() -> None:
    a, b = _expected()["hist/imgA"]
    together = rgb_uv_histogram(torch.stack([a, b]))
    torch.testing.assert_close(together, torch.cat([rgb_uv_histogram(a[None]), rgb_uv_histogram(b[None])]))


def test_hellinger_is_a_distance() -> None:
    a, b = _expected()["hist/histA"]
    assert hellinger(a[None], a[None]) < 1e-5
    assert hellinger(a[None], b[None]) == hellinger(b[None], a[None]) > 0.01
    apart = torch.eye(2)
    assert hellinger(apart[:1], apart[1:]) == pytest.approx(1)


def test_gradients_are_finite_where_it_is_hard() -> None:
    """At equal histograms, at black, white and one-coloured pixels."""
    picture = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    picture[:, :, :4] = 0
    picture[:, :, 4:6] = 1
    picture[:, 0, 6:8] = 0
    picture.requires_grad_()
    histogram = rgb_uv_histogram(picture)
    loss = hellinger(histogram, histogram.detach()).mean() + hellinger(histogram, histogram.detach().flip(0)).mean()
    (loss + mu_law(picture).mean()).backward()
    assert picture.grad is not None and picture.grad.isfinite().all() and picture.grad.abs().max() > 0


def test_histogram_keeps_its_precision_under_autocast() -> None:
    picture = _expected()["hist/imgA"]
    with torch.autocast("cpu", torch.bfloat16):
        found = rgb_uv_histogram(picture)
    assert torch.equal(found, rgb_uv_histogram(picture))
