"""What a network is like on this machine, found by trying it once, and remembered: speed, accuracy, memory.

Reduced precision gains a factor of two on a machine that calculates with it, and loses one where it is emulated; what
it costs in accuracy depends on the weights. The precision chosen is the fastest that gives the same picture.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np
import platformdirs
import torch
import torch.nn.functional as F
from torch import Tensor

from hdrcli import memory
from hdrcli.color import srgb_encode
from hdrcli.errors import WriteError
from hdrcli.files import atomic_write
from hdrcli.lanes import one_thread
from hdrcli.network import Context, Network
from hdrcli.precision import reduced
from hdrcli.tiling import everything, pad

LEAST_GAIN = 1.1
MOST_STOPS = 0.02
LEAST_ALIKE = 0.99

_SIDE = 256  # of the picture that is tried
_SIDES = 256, 512  # of the tiles whose memory is measured
_RUNS = 5
_DARKEST = 1e-3  # light below which stops are not counted


class Verdict(NamedTuple):
    """precision: to run in. gain: time of fp32 over that of reduced precision; of the processor's time on a CPU.

    stops: mean difference of the two results. alike: share of 8-bit sRGB values that differ by one level at most.
    bytes: of tensors for each pixel of the input, at most, in fp32; and in reduced precision.
    """

    precision: str
    gain: float
    stops: float
    alike: float
    bytes: float
    reduced_bytes: float

    def bytes_in(self, precision: str) -> float:
        """Of tensors for each pixel of the input, at most."""
        return self.bytes if precision == "fp32" else self.reduced_bytes

    def __str__(self) -> str:
        return (
            f"reduced precision was {self.gain:.1f}x as fast as fp32, {self.stops:.4f} stops off, "
            f"{self.alike:.1%} of 8-bit values within one level"
        )


def best(network: Network, device: torch.device) -> Verdict:
    """What a network is like that lies on `device`; tried the first time, then remembered in the user's cache."""
    key = " ".join((str(device), _machine(device), torch.__version__, _fingerprint(network)))
    known = _remembered()
    if key not in known:
        known = {**known, key: tried(network, device)}
        with suppress(OSError, WriteError):  # without a cache it is tried again next time
            _cache().parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(_cache()) as part:
                part.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known[key]


@memory.kept()
@one_thread()  # two that wait for each other take the processors' time, too
@torch.inference_mode()
def tried(network: Network, device: torch.device) -> Verdict:
    """Runs a network that lies on `device` in single and in reduced precision on one picture, and compares.

    By the fastest of several runs each; on a CPU by the processors' time, which other programs change least.
    """
    now = process_time if device.type == "cpu" else perf_counter
    candidate = "fp16" if device.type == "mps" else "bf16"
    image = pad(_picture(network.planes, _SIDE).to(device), network.tiling)

    outputs: dict[str, Tensor] = {}
    seconds = dict.fromkeys(("fp32", candidate), float("inf"))
    for precision in _RUNS * (*seconds,):
        start = now()
        outputs[precision] = network.whole(image, partial(reduced, device, precision)).cpu()
        seconds[precision] = min(seconds[precision], now() - start)
    gain = seconds["fp32"] / seconds[candidate]
    exact, near = (output.numpy() for output in outputs.values())
    stops = float(np.abs(np.log2(np.maximum(exact, _DARKEST) / np.maximum(near, _DARKEST))).mean())
    levels = [np.round(255 * srgb_encode(np.clip(output, 0, 1))) for output in (exact, near)]
    alike = float(np.mean(np.abs(levels[0] - levels[1]) <= 1))
    good = gain >= LEAST_GAIN and stops <= MOST_STOPS and alike >= LEAST_ALIKE
    return Verdict(candidate if good else "fp32", gain, stops, alike, *_bytes_of_pixel(network, device, seconds))


def _bytes_of_pixel(network: Network, device: torch.device, precisions: Iterable[str]) -> list[float]:
    """What a tile, its window among it, takes for each pixel in each precision, without what any tile takes."""
    tiles = [pad(_picture(network.planes, side).to(device), network.tiling) for side in _SIDES]
    contexts = [network.prepare(tile) for tile in tiles]
    more = tiles[1][0, 0].numel() - tiles[0][0, 0].numel()

    def work(precision: str, tile: Tensor, context: Context) -> Tensor:
        with reduced(device, precision):
            return network.part(tile.clone(), context, everything(tile))

    def needed(precision: str) -> float:
        small, large = (memory.peak(partial(work, precision, *pair)) for pair in zip(tiles, contexts, strict=True))
        return (large - small) / more

    return [needed(precision) for precision in precisions]


def _picture(planes: int, side: int) -> Tensor:
    """(1, planes, side, side) in [0, 1]: soft shapes with colour and grain, some of them clipped."""
    random = torch.Generator().manual_seed(0)
    shapes = torch.rand(1, 1, 6, 6, generator=random) + 0.2 * torch.rand(1, planes, 6, 6, generator=random)
    picture = F.interpolate(1.2 * shapes - 0.2, size=(side, side), mode="bilinear")
    picture += 0.02 * torch.randn(picture.shape, generator=random)
    return picture.clamp(0, 1)


def _fingerprint(network: Network) -> str:
    digest = hashlib.sha256(type(network).__name__.encode())
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{platform.node()} {name} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"


def _cache() -> Path:
    return platformdirs.user_cache_path("hdrcli") / "precision.json"


def _remembered() -> Mapping[str, Verdict]:
    try:
        return {key: Verdict(*values) for key, values in json.loads(_cache().read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # there is none yet, or it is damaged
        return {}
