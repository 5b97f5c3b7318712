"""Runs a network on one picture of any size: device, precision, padding, the three stages, tiles."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdrcli.batch import Check, go_on
from hdrcli.color import Float32
from hdrcli.errors import HdrError, OutOfMemoryError, UsageError
from hdrcli.network import Network
from hdrcli.tiling import crop, pad, run_tiled, spans

SMALLEST_TILE = 64

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Compute:
    """How to run a network.

    device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".
    precision: of the network's forward pass, "fp32", "bf16" or "fp16"; "auto" is fp32, the only one that holds for
    every network and scene.
    tile: side of a tile in input pixels (of packed planes for develop), None for what suits the network.
    batch: tiles that share one forward pass.
    """

    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    batch: int = 1


class Chosen(NamedTuple):
    """The device and precision that a Compute comes down to on this machine, and why that device."""

    device: torch.device
    precision: str
    reason: str


class Result(NamedTuple):
    """pixels: (H, W, 3) float32, meaning what the network's spec says it gives; how it was made, for reports."""

    pixels: Float32
    device: str
    precision: str
    tiles: int


def describe(compute: Compute) -> Chosen:
    """Settles device and precision; UsageError where they do not exist or this machine lacks the device."""
    precision = "fp32" if compute.precision == "auto" else compute.precision
    if precision not in ("fp32", *_DTYPES):
        raise UsageError(f"there is no precision {precision!r}", hint="use auto, fp32, bf16 or fp16")
    if compute.device == "auto":
        device, reason = _best_device()
        return Chosen(device, precision, reason)
    try:
        device = torch.device(compute.device)
    except RuntimeError as error:
        raise UsageError(f"there is no device {compute.device!r}", hint="use auto, cpu, cuda, cuda:N or mps") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count.get(device.type, 0):
        raise UsageError(f"{compute.device} cannot be used here: {_why_not(device.type)}", hint="use --device auto")
    return Chosen(device, precision, "asked for")


def run(network: Network, planes: Float32, compute: Compute, check: Check = go_on) -> Result:
    """Runs all three stages of `network` on a picture of any size.

    planes: (C, H, W) float32 in the network's input domain. The picture is extended to a size that the network takes,
    cut into tiles where it is larger than one, and cut back to H and W times the network's scale. When memory runs
    out the whole picture is started over with smaller batches, then smaller tiles. `check` is called before each tile;
    what it raises ends the run. Raises OutOfMemoryError, and HdrError where the network gives numbers that are not
    finite.
    """
    device, precision, _ = describe(compute)
    network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # faster on CPUs
    tile = compute.tile or network.tiling.tile
    batch = compute.batch
    while True:
        try:
            output, tiles = _run_once(network, planes, device, precision, tile, batch, check)
            break
        except (RuntimeError, MemoryError) as error:
            if not _is_for_memory(error):
                raise
            tile, batch = _smaller(tile, batch, max(planes.shape[1:]))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if not np.isfinite(output).all():
        hint = "use --precision fp32" if precision != "fp32" else "hdr models verify checks the weights"
        raise HdrError("the network gave numbers that are not finite", hint=hint)
    return Result(output, str(device), precision, tiles)


@torch.inference_mode()
def _run_once(
    network: Network,
    planes: Float32,
    device: torch.device,
    precision: str,
    tile: int,
    batch: int,
    check: Check,
) -> tuple[Float32, int]:
    tiling = network.tiling
    image = pad(torch.from_numpy(np.ascontiguousarray(planes))[None].to(device), tiling)
    windows = math.prod(len(spans(image.shape[axis], tile, tiling)) for axis in (2, 3))
    if windows == 1 and precision == "fp32":
        finished = network.whole(image)
    else:
        finished = _in_tiles(network, image, device, precision, tile, batch, check)
    picture = crop(finished, tiling, *planes.shape[1:])[0].permute(1, 2, 0)
    return picture.contiguous().cpu().numpy(), windows


def _in_tiles(
    network: Network, image: Tensor, device: torch.device, precision: str, tile: int, batch: int, check: Check
) -> Tensor:
    """The three stages, with only the middle one in tiles and in reduced precision."""
    scale = network.tiling.scale
    context = network.prepare(image)
    output = torch.empty(1, 3, image.shape[2] * scale, image.shape[3] * scale, device=device)

    def forward(tiles: Tensor) -> Tensor:
        check()
        with _autocast(device, precision):
            values: Tensor = network(tiles, context)
        return values

    for (row, column), values in run_tiled(network.located(image), forward, network.tiling, tile=tile, batch=batch):
        output[0, :, row, column] = values
    return network.finish(output, image, context)


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    if precision not in _DTYPES:
        return nullcontext()
    autocast: AbstractContextManager[None] = torch.autocast(device.type, _DTYPES[precision])
    return autocast


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


def _is_for_memory(error: Exception) -> bool:
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
