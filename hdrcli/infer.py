"""Runs a network on one picture of any size: device, precision, padding, the three stages, tiles."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from hdrcli import heap, memory
from hdrcli.batch import Check, go_on
from hdrcli.color import Floats
from hdrcli.errors import HdrError, OutOfMemoryError, UsageError
from hdrcli.image import Planes
from hdrcli.lanes import lanes, tiles_at_once
from hdrcli.network import Context, Network
from hdrcli.precision import DTYPES, reduced
from hdrcli.probe import best
from hdrcli.tiling import Kept, Padded, Tiling, run_tiled, spans, window_side

SMALLEST_TILE = 64
SHARE_OF_FREE = 0.6  # of the memory that is free
LEAST_HALOS = 6  # in the side of a window, where memory allows it: in smaller ones halos take most of the time
MOST_FOR_TILE = 224 << 20  # bytes; a larger one saves little: what halos cost less, fresh memory costs more
LARGE = 100_000_000  # numbers of a result, the finishing of which needs what tiles took

heap.share()


@dataclass(frozen=True, slots=True)
class Compute:
    """How to run a network.

    device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:N" or "mps".
    precision: of the network's forward pass, "fp32", "bf16", "fp16", or "auto": the fastest that gives the same
    picture, see `hdrcli.probe`.
    tile: side of a tile in input pixels (of packed planes for develop), None for the largest that fits into memory.
    batch: tiles that share one forward pass, None for as many as fill the memory of a GPU, and one on a CPU.
    memory: bytes that a picture and its tiles may take on the device, None for 60 % of what is free.
    compiled: whether the network is compiled first, anew for each size of tiles, by torch.compile.
    """

    device: str = "auto"
    precision: str = "auto"
    tile: int | None = None
    batch: int | None = None
    memory: int | None = None
    compiled: bool = False


class Chosen(NamedTuple):
    """The device and precision that a Compute comes down to on this machine, and why.

    bytes: that the network takes for each pixel of a tile, 0 where no network was given.
    """

    device: torch.device
    precision: str
    reason: str
    bytes: float = 0.0


class Result(NamedTuple):
    """pixels: (H, W, 3), meaning what the network's spec says it gives; how it was made, for reports."""

    pixels: Floats
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
    verdict = best(settled(network, device).core, device)
    if compute.precision == "auto":
        return Chosen(device, verdict.precision, f"{reason}; {verdict}", verdict.bytes_in(verdict.precision))
    return Chosen(device, compute.precision, reason, verdict.bytes_in(compute.precision))


def devices(compute: Compute) -> list[str]:
    """The devices that share a batch: all CUDA devices where "auto" means them, else the one that is asked for."""
    count = torch.cuda.device_count() if compute.device == "auto" else 0
    return [f"cuda:{index}" for index in range(count)] if count > 1 else [compute.device]


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


def run(network: Network, planes: Planes, compute: Compute, check: Check = go_on, *, half: bool = False) -> Result:
    """Runs all three stages of `network` on a picture of any size.

    planes: (C, H, W) floats in the network's input domain, as an array or as what makes windows of one. The picture is
    extended to a size that the network takes, cut into tiles where it is larger than one, and cut back to H and W times
    the network's scale. When memory runs out the whole picture is started over with smaller batches, then smaller
    tiles. `check` is called before each tile; what it raises ends the run. half: the result is kept in 16 bits, where
    numbers beyond 65504 become infinite, instead of 32. Raises OutOfMemoryError, and HdrError where the network gives
    numbers that are not finite.
    """
    device, precision, _, bytes_of_pixel = describe(compute, network)
    part = network.part
    if compute.compiled:
        part = partial(Network.part, network)  # of one shape for all tiles
        if network.core._compiled_call_impl is None:
            network.core.compile()
    picture = Padded(planes, network.tiling, device)
    height, width = planes.shape[1:]
    scale = network.tiling.scale
    output = torch.empty(height * scale, width * scale, 3, dtype=torch.float16 if half else torch.float32)
    budget = compute.memory or int(SHARE_OF_FREE * memory.free(device))
    budget -= output.nbytes + int(4 * math.prod(picture.shape[2:]) * network.surveyed)
    tile, batch = _fitting(picture.shape[2:], network, compute, bytes_of_pixel, budget, device)
    while True:
        try:
            tiles = _run_once(network, picture, output, partial(reduced, device, precision), tile, batch, check, part)
            break
        except (RuntimeError, MemoryError) as error:
            if _is_of_compiler(error):
                hint = "it takes a C++ compiler on a CPU and triton on a GPU; leave --compile out"
                raise HdrError(
                    f"the network cannot be compiled here: {str(error).splitlines()[0]}", hint=hint
                ) from error
            if not is_for_memory(error):
                raise
            tile, batch = _smaller(tile, batch, max(height, width))
        except _NotFiniteError as error:
            hint = "use --precision fp32" if precision != "fp32" else "hdr models verify checks the weights"
            raise HdrError("the network gave numbers that are not finite", hint=hint) from error
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if output.numel() > LARGE:
        memory.give_back()
    return Result(output.numpy(), str(device), precision, tiles)


def _is_filled(device: torch.device) -> bool:
    """Whether batches of tiles make a device faster."""
    return device.type != "cpu"


def _fitting(
    sides: Sequence[int], network: Network, compute: Compute, bytes_of_pixel: float, budget: float, device: torch.device
) -> tuple[int, int]:
    """Side of a tile and number of the tiles in a batch, where they are not asked for, that fit into `budget` bytes.

    On a GPU tiles of the side that suits the network, as many as there are or fit; on a CPU tiles as large as pays.
    """
    tiling, together, at_once = network.tiling, compute.batch or 1, tiles_at_once(device)
    most = max(MOST_FOR_TILE, bytes_of_pixel * together * (LEAST_HALOS * tiling.halo) ** 2)
    if network.surveyed or _is_filled(device):  # a picture that is surveyed is best left whole
        most = budget

    def fits(rows: int, columns: int) -> bool:
        needed = rows * columns * bytes_of_pixel * together
        return needed <= most and needed * (1 if (rows, columns) == tuple(sides) else at_once) <= budget

    tile = compute.tile or _largest_tile(sides, tiling, fits)
    if network.surveyed or not _is_filled(device):
        return tile, together
    tile = compute.tile or min(tile, tiling.tile)
    pixels = math.prod(window_side(side, tile, tiling) for side in sides)
    tiles = math.prod(len(spans(side, tile, tiling)) for side in sides)
    return tile, compute.batch or min(tiles, max(int(budget / max(bytes_of_pixel * pixels, 1)), 1))


def _largest_tile(sides: Sequence[int], tiling: Tiling, fits: Callable[[int, int], bool]) -> int:
    """The side of a tile that cuts a padded picture into as few as fit, by rows and columns, all of one size."""
    parts = range(1, -(-max(sides) // SMALLEST_TILE))
    for tile in sorted({-(-side // part) for side in sides for part in parts}, reverse=True):
        rows, columns = (window_side(side, tile, tiling) for side in sides)
        if tile > SMALLEST_TILE and fits(rows, columns):
            return tile
    return SMALLEST_TILE


@memory.kept()
@torch.inference_mode()
def _run_once(
    network: Network,
    picture: Padded,
    output: Tensor,
    reduced: Callable[[], AbstractContextManager[None]],
    tile: int,
    batch: int,
    check: Check,
    part: Callable[[Tensor, Context, Kept], Tensor],
) -> int:
    """Fills `output`, (H, W, 3), and returns the number of tiles; `forward` runs inside of `reduced`."""
    tiling = network.tiling
    _, _, height, width = picture.shape
    windows = math.prod(len(spans(side, tile, tiling)) for side in (height, width))
    if windows == 1:
        check()
        whole = (slice(0, height * tiling.scale), slice(0, width * tiling.scale))
        _keep(output, network.whole(picture[:, :, :height, :width], reduced)[0], whole, tiling)
        return 1
    context = network.survey(picture, tile, check)

    @torch.inference_mode()  # in the thread that it runs in
    def forward(tiles: Tensor, kept: Kept) -> Tensor:
        check()
        with reduced():
            values = part(tiles, context, kept)
        return network.finish(values.float(), context)

    here = network.located(picture.on(torch.device("cpu")))
    with lanes(picture.device) as beside:
        for place, values in run_tiled(here, forward, tiling, tile=tile, batch=batch, lanes=beside):
            _keep(output, values, place, tiling)
    return windows


class _NotFiniteError(Exception):
    """The network gave infinities, or what is no number."""


def _keep(output: Tensor, values: Tensor, place: tuple[slice, slice], tiling: Tiling) -> None:
    """Writes (3, h, w) values that lie at `place` in the padded output into the (H, W, 3) one without padding."""
    if not all(extreme.isfinite() for extreme in values.aminmax()):  # a number that is none is both
        raise _NotFiniteError
    border = tiling.border * tiling.scale
    starts = [max(border - span.start, 0) for span in place]  # of what lies in the picture
    rows, columns = (
        slice(start, max(min(span.stop - span.start, border + side - span.start), start))
        for start, span, side in zip(starts, place, output.shape[:2], strict=True)
    )
    top, left = (start + span.start - border for start, span in zip(starts, place, strict=True))
    own = values[:, rows, columns].permute(1, 2, 0)
    output[top : top + own.shape[0], left : left + own.shape[1]] = own


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


def _is_of_compiler(error: Exception) -> bool:
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


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
