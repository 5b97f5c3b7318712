"""Runs a network on one picture of any size: device, precision, padding, the three stages, tiles."""

import math
import os
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdrcli import memory
from hdrcli.batch import Check, go_on
from hdrcli.color import Float32
from hdrcli.errors import HdrError, OutOfMemoryError, UsageError
from hdrcli.network import Context, Network
from hdrcli.probe import DTYPES, best, reduced
from hdrcli.tiling import Tiling, crop, pad, round_up, run_tiled, spans

SMALLEST_TILE = 64
SHARE_OF_FREE = 0.6  # of the memory that is free
MOST_FOR_TILES = 2 << 30  # bytes; what larger tiles would save in halos is not worth it

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch takes large pages: new tensors cost a fifth of the time


@dataclass(frozen=True, slots=True)
class Compute:
    """How to run a network.

    device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".
    precision: of the network's forward pass, "fp32", "bf16", "fp16", or "auto": the fastest that gives the same
    picture, see `hdrcli.probe`.
    tile: side of a tile in input pixels (of packed planes for develop), None for the largest that fits into memory.
    batch: tiles that share one forward pass.
    memory: bytes that a picture and its tiles may take on the device, None for 60 % of what is free.
    """

    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    batch: int = 1
    memory: int | None = None


class Chosen(NamedTuple):
    """The device and precision that a Compute comes down to on this machine, and why.

    bytes: that the network takes for each pixel of a tile, 0 where no network was given.
    """

    device: torch.device
    precision: str
    reason: str
    bytes: float = 0.0


class Result(NamedTuple):
    """pixels: (H, W, 3) float32, meaning what the network's spec says it gives; how it was made, for reports."""

    pixels: Float32
    device: str
    precision: str
    tiles: int


def describe(compute: Compute, network: Network | None = None) -> Chosen:
    """Settles the device and, for a network that lies on it, the precision; without one that may stay "auto".

    UsageError where they do not exist or this machine lacks the device.
    """
    if compute.precision not in ("auto", "fp32", *DTYPES):
        raise UsageError(f"there is no precision {compute.precision!r}", hint="use auto, fp32, bf16 or fp16")
    device, reason = _device(compute)
    if network is None:
        return Chosen(device, compute.precision, reason)
    verdict = best(settled(network, device), device)
    if compute.precision != "auto":
        return Chosen(device, compute.precision, reason, verdict.bytes)
    return Chosen(device, verdict.precision, f"{reason}; {verdict}", verdict.bytes)


def settled(network: Network, device: torch.device) -> Network:
    """The network, ready to run on `device`; channels last, which is faster on CPUs too."""
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def _device(compute: Compute) -> tuple[torch.device, str]:
    if compute.device == "auto":
        return _best_device()
    try:
        device = torch.device(compute.device)
    except RuntimeError as error:
        raise UsageError(f"there is no device {compute.device!r}", hint="use auto, cpu, cuda, cuda:N or mps") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count.get(device.type, 0):
        raise UsageError(f"{compute.device} cannot be used here: {_why_not(device.type)}", hint="use --device auto")
    return device, "asked for"


def run(network: Network, planes: Float32, compute: Compute, check: Check = go_on) -> Result:
    """Runs all three stages of `network` on a picture of any size.

    planes: (C, H, W) float32 in the network's input domain. The picture is extended to a size that the network takes,
    cut into tiles where it is larger than one, and cut back to H and W times the network's scale. When memory runs
    out the whole picture is started over with smaller batches, then smaller tiles. `check` is called before each tile;
    what it raises ends the run. Raises OutOfMemoryError, and HdrError where the network gives numbers that are not
    finite.
    """
    device, precision, _, bytes_of_pixel = describe(compute, network)
    batch = compute.batch
    budget = compute.memory or int(SHARE_OF_FREE * memory.free(device))
    height, width = _padded(planes.shape[1:], network.tiling)
    budget -= int(4 * height * width * (network.planes + max(3 * network.tiling.scale**2, network.surveyed)))
    tile = compute.tile or _largest_tile(height, width, network.tiling, bytes_of_pixel * batch, budget)
    fits = height * width * bytes_of_pixel <= budget
    while True:
        try:
            output, tiles = _run_once(network, planes, device, precision, tile, batch, fits, check)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_for_memory(error):
                raise
            tile, batch = _smaller(tile, batch, max(planes.shape[1:]))
            fits = False
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if not np.isfinite(output).all():
        hint = "use --precision fp32" if precision != "fp32" else "hdr models verify checks the weights"
        raise HdrError("the network gave numbers that are not finite", hint=hint)
    return Result(output, str(device), precision, tiles)


def _padded(size: tuple[int, ...], tiling: Tiling) -> tuple[int, int]:
    """What `pad` makes of a picture's height and width."""
    height, width = (round_up(max(side + 2 * tiling.border, tiling.minimum), tiling.multiple_of) for side in size)
    return height, width


def _largest_tile(height: int, width: int, tiling: Tiling, bytes_of_pixel: float, budget: int) -> int:
    """Cuts a padded picture into as few tiles as fit into `budget` bytes, all of one size."""
    for parts in count(1):
        tile = max(-(-max(height, width) // parts), SMALLEST_TILE)
        rows, columns = (spans(length, tile, tiling)[0].window.stop for length in (height, width))
        if tile == SMALLEST_TILE or rows * columns * bytes_of_pixel <= min(budget, MOST_FOR_TILES):
            return tile
    raise AssertionError("tiles end at the smallest")


@torch.inference_mode()
def _run_once(
    network: Network,
    planes: Float32,
    device: torch.device,
    precision: str,
    tile: int,
    batch: int,
    fits: bool,
    check: Check,
) -> tuple[Float32, int]:
    tiling = network.tiling
    image = pad(_uploaded(planes, device), tiling)
    windows = math.prod(len(spans(image.shape[axis], tile, tiling)) for axis in (2, 3))
    if windows == 1:
        check()
        finished = network.whole(image, partial(reduced, device, precision))
    else:
        context = network.prepare(image) if fits else network.survey(image, tile, check)
        finished = _in_tiles(network, image, context, device, precision, tile, batch, check)
    picture = crop(finished, tiling, *planes.shape[1:])[0].permute(1, 2, 0)
    return picture.contiguous().cpu().numpy(), windows


def _uploaded(planes: Float32, device: torch.device) -> Tensor:
    """(1, C, H, W) on the device; to a GPU by pinned memory, which it reads while other things are done."""
    image = torch.from_numpy(np.ascontiguousarray(planes))[None]
    return image.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else image.to(device)


def _in_tiles(
    network: Network,
    image: Tensor,
    context: Context,
    device: torch.device,
    precision: str,
    tile: int,
    batch: int,
    check: Check,
) -> Tensor:
    """The last two stages, the first of them in tiles and in reduced precision."""
    scale = network.tiling.scale
    output = torch.empty(
        (1, 3, image.shape[2] * scale, image.shape[3] * scale), device=device, memory_format=torch.channels_last
    )

    def forward(tiles: Tensor) -> Tensor:
        check()
        with reduced(device, precision):
            values: Tensor = network(tiles, context)
        return values

    for (row, column), values in run_tiled(network.located(image), forward, network.tiling, tile=tile, batch=batch):
        output[0, :, row, column] = values
    return network.finish(output, image, context)


def _smaller(tile: int, batch: int, side: int) -> tuple[int, int]:
    """The next tile and batch to try for a picture of `side` pixels."""
    if batch > 1:
        return tile, batch // 2
    tile = min(tile, side) // 2
    if tile < SMALLEST_TILE:
        raise OutOfMemoryError(
            "the picture does not fit into the memory of the device, even in the smallest tiles",
            hint="use fewer --jobs, close other programs that use the device, or cut the picture into parts",
        )
    return tile, batch


def is_for_memory(error: Exception) -> bool:
    """Whether an allocation failed; on the CPU torch says so in the words of a RuntimeError alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator:" in str(error)


def _best_device() -> tuple[torch.device, str]:
    if torch.cuda.is_available():
        return torch.device("cuda"), f"CUDA device {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "Metal device of this Mac"
    return torch.device("cpu"), _why_not("cuda")


def _why_not(device_type: str) -> str:
    if device_type == "mps":
        return "this torch sees no Metal device"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    return f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
