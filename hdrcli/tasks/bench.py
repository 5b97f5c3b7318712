"""bench: how fast networks run here, beside what this machine can do at most."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from hdrcli import cards, infer, memory, nets, zoo
from hdrcli.color import Float32
from hdrcli.errors import UsageError
from hdrcli.infer import Compute
from hdrcli.lanes import one_thread
from hdrcli.network import Network
from hdrcli.precision import ceiling, fastest

_ROUNDS = 3


def _operations(x: list[int], weight: list[int], *_: object, out_shape: list[int], **__: object) -> int:
    return conv_flop_count(x, weight, out_shape)


def _fused() -> dict[Any, Callable[..., int]]:
    """Operations of fused convolutions, which torch does not count by itself."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return {}
    return {
        torch.ops.mkldnn._convolution_pointwise: _operations,
        torch.ops.mkldnn._convolution_pointwise_: lambda onto, *shapes, **named: _operations(*shapes, **named),
    }


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network at one size on one device in one precision.

    megapixels: of the output. speed: megapixels a second, whole pictures, the fastest of three. gflops: convolutions
    and matrix products a second, in 10^9 operations, those in the halos of tiles included. ceiling: the same of the
    best plain convolution. share: gflops over ceiling. bytes: of tensors at one time, at most.
    """

    model: str
    megapixels: float
    device: str
    precision: str
    speed: float
    gflops: float
    ceiling: float
    share: float
    bytes: int
    tiles: int


def bench(
    models: Sequence[str], megapixels: Sequence[float], precisions: Sequence[str], compute: Compute
) -> Iterator[Row]:
    """Measures each model, by its name or its network's (then with random weights), at each size and precision."""
    device = infer.describe(compute).device
    networks = {name: _network(name) for name in models}
    ceilings = {precision: ceiling(device, precision) for precision in precisions}
    for name, network in networks.items():
        for size in megapixels:
            for precision in precisions:
                how = Compute(str(device), precision, compute.tile, compute.batch, compute.memory)
                yield measured(name, network, size, how, ceilings[precision])


def measured(name: str, network: Network, megapixels: float, compute: Compute, ceiling: float) -> Row:
    """Runs a network on a picture of so many megapixels, about 4:3, with grain and clipped parts."""
    device = infer.describe(compute).device
    planes = _picture(network, megapixels)
    needed = memory.peak(lambda: infer.run(network, planes, compute))
    with one_thread():  # what counts operations sees those of its own thread alone
        infer.describe(compute, network)  # tries it, where that is new
        with FlopCounterMode(display=False, custom_mapping=_fused()) as counter:
            tiles = infer.run(network, planes, compute).tiles
    with memory.kept():  # as commands do for a batch
        seconds = fastest(lambda: infer.run(network, planes, compute), _ROUNDS, device)
    pixels = planes[0].size * network.tiling.scale**2
    gflops = counter.get_total_flops() / seconds / 1e9
    return Row(
        model=name,
        megapixels=megapixels,
        device=str(device),
        precision=compute.precision,
        speed=pixels / seconds / 1e6,
        gflops=gflops,
        ceiling=ceiling,
        share=gflops / ceiling,
        bytes=needed,
        tiles=tiles,
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the share of the ceiling that each row reaches as bars, in an SVG file."""
    bars = [
        f'<text x="8" y="{24 * i + 33}">{row.model}, {row.megapixels:g} MP, {row.device}, {row.precision}</text>'
        f'<rect x="320" y="{24 * i + 20}" width="{400 * min(row.share, 1):.0f}" height="16" fill="#4a7ab5"/>'
        f'<text x="730" y="{24 * i + 33}">{row.share:.0%}, {row.speed:.2f} MP/s</text>'
        for i, row in enumerate(rows)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{24 * len(rows) + 32}" font-size="13"'
    limit = f'<path d="M720 16V{24 * len(rows) + 16}" stroke="#888"/>'
    path.write_text(f'{head} font-family="sans-serif">{"".join(bars)}{limit}</svg>\n', encoding="utf-8")


def _network(name: str) -> Network:
    if cards.known(name) is None and name in nets.names():
        return nets.spec(name).build()
    return zoo.load(name).network


def _picture(network: Network, megapixels: float) -> Float32:
    if megapixels <= 0:
        raise UsageError(f"a picture of {megapixels:g} megapixels has no pixels", hint="give a size above 0")
    height = max(round((0.75 * megapixels * 1e6) ** 0.5 / network.tiling.scale), 1)
    return np.random.default_rng(0).random((network.planes, height, height * 4 // 3), np.float32).round(2)
