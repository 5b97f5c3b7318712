"""How networks compare with plain ports of the authors' code: `python tests/bench/ratios.py [NETWORK ...]`.

A plain port runs in fp32, planes first, with concatenations that are made. Both run in this
process, one after the other, on one thread; seconds are processor seconds, so that other programs hardly disturb them.
Prints, for each network, seconds per megapixel of both and their ratio, and the share of the best convolution.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import Conv2d
from torch.utils.flop_counter import FlopCounterMode

from hdrcli import nets, probe
from hdrcli.nets._joined import JoinedConv2d
from hdrcli.tasks import bench

NETWORKS = ("fhdr", "hdrisp", "hdrcnn", "singlehdr", "lumen", "lumenraw")
CPU = torch.device("cpu")


def concatenated(layer: JoinedConv2d, parts: Iterable[Tensor]) -> Tensor:
    """What JoinedConv2d spares: the concatenation is made."""
    return Conv2d.forward(layer, torch.cat(list(parts), dim=1))


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Processor seconds of the fastest round."""
    taken = []
    for _ in range(rounds + 1):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken[1:])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--side", type=int, default=512, help="of the picture, in pixels of the output")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with patch("hdrcli.tasks.bench.perf_counter", time.process_time):
        ceiling = bench.ceiling(CPU, "bf16")
    print(f"ceiling: {ceiling:.0f} GFLOP/s in bf16 on one core")
    for name in options.networks:
        network = nets.spec(name).build().eval()
        side = options.side // network.tiling.scale
        image = torch.rand(1, network.planes, side, side).round(decimals=2)
        megapixels = options.side**2 / 1e6
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                network.whole(image)
            with patch.object(JoinedConv2d, "forward", concatenated):
                plain = seconds(lambda network=network, image=image: network.whole(image), options.rounds)
            network.to(memory_format=torch.channels_last)
            ours = seconds(
                lambda network=network, image=image: network.whole(image, lambda: probe.reduced(CPU, "bf16")),
                options.rounds,
            )
        share = counter.get_total_flops() / 1e9 / ours / ceiling
        print(
            f"{name:<10}{plain / megapixels:>8.2f} s/MP plain{ours / megapixels:>8.2f} s/MP ours"
            f"{plain / ours:>7.2f}x{share:>7.0%} of the ceiling",
            flush=True,
        )


if __name__ == "__main__":
    main()
