"""What every network claims about itself is proved here, for every file in hdrcli/nets.

Everything runs in double precision: there rounding is some 1e-16, so that any larger difference is a wrong claim.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch
from probe import NOISE, randomize, reach
from standins import tiled
from torch import Tensor

from hdrcli import nets
from hdrcli.network import Network
from hdrcli.tiling import Tiling, crop, kept_of, pad, round_up

every_network = pytest.mark.parametrize("name", nets.names())
both_axes = pytest.mark.parametrize("axis", [2, 3], ids=["rows", "columns"])


@pytest.fixture(autouse=True)
def _full_precision_is_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What networks keep in float32 whatever the precision of the rest is double here, like the rest."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@cache
def _network(name: str) -> Network:
    spec = nets.spec(name)
    network: Network = randomize(spec.build(**spec.tiny)).double()
    return network


def _picture(name: str, height: int, width: int, seed: int = 0) -> Tensor:
    """Random values of which some clip."""
    channels = {"expand": 3, "develop": 4}[nets.spec(name).task]
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, channels, height, width, generator=generator, dtype=torch.float64) * 1.3).clamp(max=1)


def _lattice(tiling: Tiling) -> tuple[int, int]:
    """The smallest size that the network takes, and the halo, both on its lattice."""
    return round_up(tiling.minimum, tiling.multiple_of), round_up(tiling.halo, tiling.multiple_of)


def _strip(name: str, axis: int, length: int) -> Tensor:
    """A picture as narrow as the network takes."""
    narrow, _ = _lattice(_network(name).tiling)
    return _picture(name, length, narrow) if axis == 2 else _picture(name, narrow, length)


def _relative(found: Tensor, expected: Tensor) -> Tensor:
    return (found - expected).abs() / (1 + expected.abs())


@every_network
def test_spec_is_complete(name: str) -> None:
    spec = nets.spec(name)
    assert spec.paper and spec.tiny and isinstance(spec.build(**spec.tiny), Network)
    tiling = _network(name).tiling
    assert (
        min(tiling.multiple_of, tiling.scale, tiling.tile, tiling.minimum) >= 1 and min(tiling.halo, tiling.border) >= 0
    )


@every_network
@torch.inference_mode()
def test_sizes(name: str) -> None:
    """The smallest size, one step more, and any size once it is padded."""
    network = _network(name)
    tiling = network.tiling
    least, _ = _lattice(tiling)
    for height, width in ((least, least), (least + tiling.multiple_of, least), (1, least + 1), (least + 3, 2)):
        image = _picture(name, height, width)
        padded = pad(image, tiling)
        assert all(size % tiling.multiple_of == 0 and size >= tiling.minimum for size in padded.shape[2:])
        assert torch.equal(crop(padded, replace(tiling, scale=1), height, width), image)
        output = crop(network.whole(padded), tiling, height, width)
        assert output.shape == (1, 3, height * tiling.scale, width * tiling.scale)
        assert output.isfinite().all()


@every_network
@both_axes
@torch.inference_mode()
def test_halo(name: str, axis: int) -> None:
    """Nothing changes further away than the halo, and something does at more than half of that."""
    network = _network(name)
    tiling = network.tiling
    least, halo = _lattice(tiling)
    image = _strip(name, axis, halo + 3 * least)
    context = network.prepare(image)
    found = reach(lambda tile: network(tile, context), image, axis, margin=least, lattice=tiling.multiple_of)
    print(f"{name}: reach {found} of halo {tiling.halo} along axis {axis}")
    assert tiling.halo / 2 < found <= tiling.halo


@every_network
@pytest.mark.parametrize(("axis", "batch"), [(2, 1), (3, 2)], ids=["rows", "columns-in-pairs"])
@torch.inference_mode()
def test_tiled_equals_whole(name: str, axis: int, batch: int) -> None:
    network = _network(name)
    least, halo = _lattice(network.tiling)
    tile = max(least, halo)
    image = _strip(name, axis, 2 * halo + 3 * tile)
    context = network.prepare(image)
    whole = network(image, context)
    found = tiled(network, image, context, tile=tile, batch=batch)
    worst = float(_relative(found, whole).max())
    print(f"{name}: tiled differs by {worst:.1e} along axis {axis}, {batch} at a time")
    assert worst <= NOISE


@every_network
@torch.inference_mode()
def test_a_part_is_that_of_the_whole(name: str) -> None:
    """At corners, at edges and in the middle, small and large; nothing that is left out changes it."""
    network = _network(name)
    step = network.tiling.multiple_of
    side = round_up(max(_lattice(network.tiling)[0], 96), step)
    image = _picture(name, side, side + step)
    context = network.prepare(image)
    whole = network(image, context)
    middle = side // 2 // step * step
    rows = [slice(0, step), slice(middle, middle + step), slice(side - step, side), slice(step, side - step)]
    columns = [slice(0, side + step), slice(middle, middle + 2 * step), slice(0, 2 * step), slice(side, side + step)]
    for kept in zip(rows, columns, strict=True):
        worst = float(_relative(network.part(image, context, kept), kept_of(whole, kept, network.tiling.scale)).max())
        assert worst <= NOISE, f"{name}: {kept} differs by {worst:.1e}"


@every_network
@torch.inference_mode()
def test_a_batch_equals_one_at_a_time(name: str) -> None:
    network = _network(name)
    size = _lattice(network.tiling)[0] + network.tiling.multiple_of
    tiles = [_picture(name, size, size, seed) for seed in range(3)]
    context = network.prepare(tiles[0])
    together = network(torch.cat(tiles), context)
    apart = torch.cat([network(tile, context) for tile in tiles])
    assert _relative(together, apart).max() <= NOISE


@every_network
@torch.inference_mode()
def test_nothing_is_remembered(name: str) -> None:
    """A picture gives the same before and after another one, and its context stays what it was."""
    network = _network(name)
    size = _lattice(network.tiling)[0]
    first, second = _picture(name, size, size, 1), _picture(name, size + network.tiling.multiple_of, size, 2)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    context = network.prepare(first)
    kept = {key: value.clone() for key, value in context.items()}
    before = network.whole(first)
    network.whole(second)
    assert torch.equal(network.whole(first), before)
    assert all(len(value) == 1 and torch.equal(value, kept[key]) for key, value in context.items())
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    again = network.prepare(first)
    assert again.keys() == context.keys() and all(torch.equal(again[key], context[key]) for key in again)


@every_network
@torch.inference_mode()
def test_inputs_are_left_alone(name: str) -> None:
    network = _network(name)
    size = _lattice(network.tiling)[0]
    image = _picture(name, size, size)
    kept = image.clone()
    network.whole(image)
    assert torch.equal(image, kept)


@every_network
def test_gradients(name: str) -> None:
    """A network can be trained: the output depends smoothly on the weights, through all three stages."""
    network = _network(name)
    size = _lattice(network.tiling)[0]
    network.whole(_picture(name, size, size)).mean().backward()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    network.zero_grad(set_to_none=True)
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) > 0 for gradient in gradients) > len(gradients) / 2
