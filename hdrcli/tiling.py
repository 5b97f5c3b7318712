"""Exact tiles: a picture cut so that the tiled result equals the whole one, with nothing blended.

Along one axis, for a tile of T pixels and a halo of A:

        |<--- A --->|<------ T ------>|<--- A --->|
        [           window: what the network sees  ]
                    [ kept: what is written        ]

At the picture's edge there is no halo, and more is kept instead, so every window of a picture has the same shape and
windows can share one forward pass; the network's own padding then happens at the true edge only.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdrcli.image import Planes
from hdrcli.lanes import Begun, Lanes, Work


@dataclass(frozen=True, slots=True)
class Tiling:
    """What a network claims about its geometry; the tests prove every claim.

    multiple_of: height and width of an input, and tile origins, are multiples of this (input pixels).
    halo: an output pixel depends on input pixels at most this far away.
    scale: output pixels per input pixel.
    tile: side of the kept part of a tile that suits the network (input pixels).
    minimum: the smallest height and width that the network takes.
    border: pixels that the picture is extended by on all sides before anything else, and that are cut off again.
    """

    multiple_of: int = 1
    halo: int = 0
    scale: int = 1
    tile: int = 1024
    minimum: int = 1
    border: int = 0


class Windows(Protocol):
    """A (N, C, H, W) picture of which windows are taken: a tensor, or what makes them when they are asked for."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, window: tuple[slice, slice, slice, slice], /) -> Tensor: ...


class Padded:
    """What `pad` makes of stored planes, as (1, C, H, W) windows in single precision on `device`."""

    def __init__(self, planes: Planes, tiling: Tiling, device: torch.device) -> None:
        self._planes, self.device = planes, device
        self._rows, self._columns = (_mirrored(length, tiling) for length in planes.shape[1:])
        self.shape = (1, planes.shape[0], len(self._rows), len(self._columns))

    def __getitem__(self, window: tuple[slice, slice, slice, slice]) -> Tensor:
        rows, columns = self._rows[window[2]], self._columns[window[3]]
        first_row, first_column = rows.min(), columns.min()
        stored = self._planes[window[1], first_row : rows.max() + 1, first_column : columns.max() + 1]
        numbers = torch.from_numpy(stored).float()[None]
        for axis, index in ((2, rows - first_row), (3, columns - first_column)):
            numbers = _taken(numbers, axis, index)
        return numbers.contiguous().to(self.device)

    def on(self, device: torch.device) -> "Padded":
        """The same with windows on another device."""
        other = copy(self)
        other.device = device
        return other


class Span(NamedTuple):
    """One tile along one axis, in input pixels: the window seen and the part of it that is kept."""

    window: slice
    kept: slice

    @property
    def inside(self) -> slice:
        """What is kept, in pixels of the window."""
        return within(self.kept, self.window)


Kept = tuple[slice, slice]
"""Rows and columns of a window, in input pixels, that are kept of what a network makes of it."""


def everything(window: Tensor) -> Kept:
    """All rows and columns of (N, C, H, W)."""
    return slice(0, window.shape[2]), slice(0, window.shape[3])


def within(span: slice, outer: slice) -> slice:
    """A span counted from the beginning of a larger one."""
    return slice(span.start - outer.start, span.stop - outer.start)


def widened(kept: Kept, by: int, window: Tensor) -> Kept:
    """What is kept and `by` pixels around it, as far as a (N, C, H, W) window has them."""
    rows, columns = (
        slice(max(span.start - by, 0), min(span.stop + by, side))
        for span, side in zip(kept, window.shape[2:], strict=True)
    )
    return rows, columns


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `size`."""
    return -(-size // multiple) * multiple


def spans(length: int, tile: int, tiling: Tiling) -> list[Span]:
    """Cuts an axis of `length` pixels (a multiple of `tiling.multiple_of`) into tiles; the kept parts cover it once.

    They are as many as `tile` asks for, and their windows have one size, so that the first and the last, which have no
    halo at the picture's edge, keep more.
    """
    halo, size = round_up(tiling.halo, tiling.multiple_of), window_side(length, tile, tiling)
    if size == length:
        return [Span(slice(0, length), slice(0, length))]
    cut: list[Span] = []
    kept = 0
    while kept < length:
        start = min(max(kept - halo, 0), length - size)
        end = length if start + size == length else start + size - halo
        cut.append(Span(slice(start, start + size), slice(kept, end)))
        kept = end
    return cut


def window_side(length: int, tile: int, tiling: Tiling) -> int:
    """Pixels of each window that `spans` cuts."""
    tiles = -(-length // round_up(max(tile, 1), tiling.multiple_of))
    halo = round_up(tiling.halo, tiling.multiple_of)
    shared = -(-(length + 2 * halo * (tiles - 1)) // tiles)
    return min(round_up(max(shared, tiling.minimum), tiling.multiple_of), length)


def pad(image: Tensor, tiling: Tiling) -> Tensor:
    """Mirrors (N, C, H, W) outwards, edge pixels repeated, to what the network takes; `crop` is the way back.

    By the border on all sides, and at the bottom and the right by as much more as `multiple_of` and `minimum` need.
    """
    for axis in (2, 3):
        image = _taken(image, axis, _mirrored(image.shape[axis], tiling))
    return image


def _mirrored(length: int, tiling: Tiling) -> NDArray[np.int64]:
    """Which of `length` rows or columns each row or column of the padded picture is."""
    target = round_up(max(length + 2 * tiling.border, tiling.minimum), tiling.multiple_of)
    return np.pad(np.arange(length), (tiling.border, target - length - tiling.border), mode="symmetric")


def _taken(numbers: Tensor, axis: int, index: NDArray[np.int64]) -> Tensor:
    """`numbers` at `index`; what lies there in a row is copied as it is, not one by one."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    runs = [(int(run[0]), len(run)) for run in np.split(index, breaks)]
    if runs == [(0, numbers.shape[axis])]:
        return numbers
    return torch.cat([numbers.narrow(axis, first, length) for first, length in runs], dim=axis)


def crop(output: Tensor, tiling: Tiling, height: int, width: int) -> Tensor:
    """What the output (N, C, H, W) of a padded picture has of the picture itself, given its size in input pixels."""
    rows, columns = (slice(tiling.border, tiling.border + size) for size in (height, width))
    return kept_of(output, (rows, columns), tiling.scale)


def kept_of(output: Tensor, kept: Iterable[slice], scale: int) -> Tensor:
    """The part of a network's whole output for a window, (N, C, H, W), that is kept."""
    rows, columns = (_scaled(span, scale) for span in kept)
    return output[:, :, rows, columns]


def run_tiled(
    image: Windows,
    part: Callable[[Tensor, Kept], Tensor],
    tiling: Tiling,
    *,
    tile: int,
    batch: int = 1,
    lanes: Lanes,
) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Runs `part` over all tiles of a padded (1, C, H, W) picture on the CPU, `batch` tiles at a time.

    part: takes windows and what is kept of them, and gives that part of their outputs.
    Yields, tile by tile, the rows and columns of the output that the tile fills, and its (C', h, w) values, while the
    device that `lanes` lead to is busy with the next ones.
    """
    rows, columns = (spans(image.shape[axis], tile, tiling) for axis in (2, 3))
    places = list(product(rows, columns))
    begun: deque[_Group] = deque()
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        windows = [image[:, :, row.window, column.window] for row, column in group]
        kept = _hull([row for row, _ in group]), _hull([column for _, column in group])
        together = torch.cat(windows) if len(windows) > 1 else windows[0]
        begun.append(_Group(group, kept, lanes.begin(_keeping(part, kept), together)))
        if len(begun) > lanes.ahead:
            yield from begun.popleft().parts(tiling)
    while begun:
        yield from begun.popleft().parts(tiling)


def _keeping(part: Callable[[Tensor, Kept], Tensor], kept: Kept) -> Work:
    return lambda tiles: part(tiles, kept)


def _hull(cut: Sequence[Span]) -> slice:
    """What is kept of any of these windows."""
    return slice(min(span.inside.start for span in cut), max(span.inside.stop for span in cut))


class _Group(NamedTuple):
    """Tiles that are worked on."""

    places: Sequence[tuple[Span, Span]]
    kept: Kept
    outputs: Begun

    def parts(self, tiling: Tiling) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        for spans, output in zip(self.places, self.outputs(), strict=True):
            own = (
                _scaled(within(span.inside, kept), tiling.scale) for span, kept in zip(spans, self.kept, strict=True)
            )
            rows, columns = (_scaled(span.kept, tiling.scale) for span in spans)
            yield (rows, columns), output[:, *own]


def _scaled(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)
