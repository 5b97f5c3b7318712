"""How networks compare with plain ports of the authors' code: `python tests/bench/ratios.py [NETWORK ...]`.

A plain port runs in fp32, planes first, with concatenations that are made and norms of their own, in a process that
gets its memory as torch does by itself. Rounds of the two take turns, on one thread; seconds are processor seconds, so
that other programs hardly disturb them. Prints, for each network, seconds per megapixel of both and their ratio, and
the share of the best convolution that ours reaches.
"""

import argparse
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Conv2d, Sequential
from torch.utils.flop_counter import FlopCounterMode

from hdrcli import infer, memory, nets
from hdrcli.nets._fused import NormedConv2d, activated
from hdrcli.nets._joined import JoinedConv2d
from hdrcli.network import Network
from hdrcli.precision import ceiling, reduced

NETWORKS = ("fhdr", "hdrisp", "hdrcnn", "singlehdr", "lumen", "lumenraw")
CPU = torch.device("cpu")


def concatenated(layer: JoinedConv2d, parts: Iterable[Tensor], slope: float | None = None) -> Tensor:
    """What JoinedConv2d spares: the concatenation is made."""
    return activated(Conv2d.forward(layer, torch.cat(list(parts), dim=1)), None, slope)


def apart(layer: NormedConv2d, x: Tensor, *, onto: Tensor | None = None, slope: float | None = None) -> Tensor:
    """What NormedConv2d spares: the normalisation is made."""
    return activated(Sequential.forward(layer, x), onto, slope)


def plainly() -> None:
    """Makes this process one of plain ports."""
    torch.set_num_threads(1)
    patch.object(JoinedConv2d, "forward", concatenated).start()
    patch.object(NormedConv2d, "forward", apart).start()
    patch("hdrcli.nets._quick._whole", lambda picture: True).start()
    patch.object(F, "relu_", F.relu).start()
    patch.object(F, "leaky_relu_", F.leaky_relu).start()
    patch("hdrcli.nets.lumenraw.asinh", torch.asinh).start()


@cache
def made(name: str, side: int) -> tuple[Network, Tensor]:
    """The network with random weights, and a picture of which it makes one of side x side pixels."""
    torch.manual_seed(0)
    network = nets.spec(name).build().eval()
    side //= network.tiling.scale
    return network, torch.rand(1, network.planes, side, side).round(decimals=2)


@torch.inference_mode()
def plain_seconds(name: str, side: int) -> float:
    """Processor seconds of a plain port."""
    network, image = made(name, side)
    start = time.process_time()
    network.whole(image)
    return time.process_time() - start


@torch.inference_mode()
def our_seconds(name: str, side: int) -> float:
    """Processor seconds of one of many tiles, in bf16, as the program runs it."""
    network, image = made(name, side)
    infer.settled(network, CPU)
    start = time.process_time()
    network.whole(image, partial(reduced, CPU, "bf16"))
    return time.process_time() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--side", type=int, default=1024, help="of the picture, in pixels of the output")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    best = ceiling(CPU, "bf16", time.process_time)
    print(f"ceiling: {best:.0f} GFLOP/s in bf16 on one core")
    megapixels = options.side**2 / 1e6
    for name in options.networks:
        network, image = made(name, options.side)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network.whole(image)
        plain, ours = [], []
        with memory.kept(), ProcessPoolExecutor(1, get_context("spawn"), plainly) as other:
            for _ in range(options.rounds + 1):  # the first ones warm up
                plain.append(other.submit(plain_seconds, name, options.side).result())
                ours.append(our_seconds(name, options.side))
        taken = min(ours[1:])
        ratio, share = min(plain[1:]) / taken, counter.get_total_flops() / 1e9 / taken / best
        print(
            f"{name:<10}{min(plain[1:]) / megapixels:>8.2f} s/MP plain{taken / megapixels:>8.2f} s/MP ours"
            f"{ratio:>7.2f}x{share:>7.0%} of the ceiling",
            flush=True,
        )


if __name__ == "__main__":
    main()
