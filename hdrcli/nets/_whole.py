"""Numbers that hold for a whole picture inside a network, measured on it at once or gathered over its tiles.

`Survey` goes over all tiles of a picture again and again. Each pass measures the statistics of which all the earlier
ones are known; then their parts are merged. Nothing is approximate: what a tile knows besides comes from its halo.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.batch import Check
from hdrcli.errors import WrongStateError
from hdrcli.nets._quick import mean_of, single
from hdrcli.network import Context
from hdrcli.tiling import Span, Tiling, Windows, spans


class Statistic(nn.Module):
    """The mean of each channel of a whole picture's map; beside it its variance or its largest value, if wanted.

    Gives (N, 1, C) or (N, 2, C), at least in single precision. name: its key in the context, set by `name_statistics`.
    """

    def __init__(self, beside: str = "") -> None:
        super().__init__()
        self.beside = beside
        self.name = ""

    def forward(self, x: Tensor, facts: "Facts") -> Tensor:
        return facts.statistic(self, x)

    def measured(self, x: Tensor) -> Tensor:
        rows = [mean_of(single, x)]
        if self.beside == "variance":  # in two passes: as accurate as torch.var_mean, and faster
            mean = rows[0][:, :, None, None]
            rows.append(mean_of(lambda band: (single(band) - mean).square(), x))
        elif self.beside == "largest":
            rows.append(single(x.amax(dim=(2, 3))))
        return torch.stack(rows, dim=1)

    def merged(self, counts: Sequence[int], parts: Sequence[Tensor]) -> Tensor:
        """What `measured` gives for a map, given what it gave for parts of it, of `counts` samples each."""
        values = torch.stack([part.cpu().double() for part in parts])
        shares = (torch.tensor(counts, dtype=torch.float64) / sum(counts))[:, None, None]
        means = values[:, :, 0]
        mean = (shares * means).sum(0)
        rows = [mean]
        if self.beside == "variance":
            rows.append((shares * (values[:, :, 1] + (means - mean).square())).sum(0))
        elif self.beside == "largest":
            rows.append(values[:, :, 1].amax(0))
        return torch.stack(rows, dim=1).to(parts[0])


def name_statistics(network: nn.Module) -> None:
    """Names each statistic by its place in the network."""
    for name, module in network.named_modules():
        if isinstance(module, Statistic):
            module.name = name


class Facts:
    """What holds for a whole picture: taken from a context or, where that is empty, measured on the tile itself.

    tile: (N, C, h, w), C being `planes` or, with the rows and columns that `Located` adds, two more.
    noted: the context of later tiles.
    """

    def __init__(self, tile: Tensor, context: Context, planes: int) -> None:
        self._known = context
        self._sides = torch.tensor([tile.shape[2:]]) if not context else context["sides"]
        self.noted = {"sides": self._sides}
        if tile.shape[1] > planes:
            self._rows, self._columns = tile[:, planes, :, 0], tile[:, planes + 1, 0, :]
        elif self._sides.tolist() == [list(tile.shape[2:])]:
            self._rows, self._columns = (_places(side, tile)[None] for side in tile.shape[2:])
        else:
            raise WrongStateError(
                "hdrisp was given a tile that does not say where in the picture it lies",
                hint="cut tiles from network.located(picture)",
            )

    def statistic(self, which: Statistic, x: Tensor) -> Tensor:
        self.noted[which.name] = self._known[which.name] if self._known else which.measured(x)
        return self.noted[which.name]

    def each(self, calls: Iterable[Callable[[], Tensor]]) -> Iterator[Tensor]:
        """The results of calls of which none needs another's, one at a time."""
        return (call() for call in calls)

    def count(self, x: Tensor) -> int:
        """Samples that the whole picture's x has."""
        covers = self._covers(x)
        return math.prod(side // covers for side in self._sides[0].tolist())

    def seen(self, whole: Tensor, covers: int) -> Tensor:
        """The tiles' parts of a map of the whole picture, of which every sample covers so many rows and columns."""
        starts = [
            [round(place * side / covers) for place in places[:, 0].tolist()]
            for places, side in zip((self._rows, self._columns), self._sides[0].tolist(), strict=True)
        ]
        height, width = (places.shape[1] // covers for places in (self._rows, self._columns))
        parts = [whole[:, :, top : top + height, left : left + width] for top, left in zip(*starts, strict=True)]
        return torch.cat(parts)

    def doubled(self, x: Tensor) -> Tensor:
        """Bilinear, twice the size, corners of the whole picture on corners (`align_corners=True`)."""
        height, width = self._sides[0].tolist()
        return _doubled(_doubled(x, 2, self._rows, height), 3, self._columns, width)

    def _covers(self, x: Tensor) -> int:
        """Rows of the picture in each row of x."""
        return self._rows.shape[1] // x.shape[2]


class Located:
    """A picture with two more planes: row and column of each pixel in parts of the picture's height and width."""

    def __init__(self, image: Windows) -> None:
        self._image = image
        count, planes, height, width = image.shape
        self.shape = (count, planes + 2, height, width)

    def __getitem__(self, window: tuple[slice, slice, slice, slice]) -> Tensor:
        tile = self._image[window]
        plane = tile[:, :1]
        rows, columns = (_places(side, tile)[axis] for side, axis in zip(self.shape[2:], window[2:], strict=True))
        return torch.cat([tile, rows[:, None].expand_as(plane), columns.expand_as(plane)], dim=1)


def _places(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device).to(like.dtype) / length


def _doubled(x: Tensor, axis: int, places: Tensor, length: int) -> Tensor:
    """Doubles one axis of a map of which every sample covers `covers` pixels of a picture of `length`.

    Sample k of n gives two: it drawn to sample k - 1 by k / (2n - 1), and it drawn to k + 1 by (n - 1 - k) / (2n - 1).
    """
    covers = places.shape[1] // x.shape[axis]
    share = places[:, ::covers] * (length / (2 * length - covers))
    share = (share[:, None, :, None] if axis == 2 else share[:, None, None, :]).to(x.dtype)
    rest = (length - covers) / (2 * length - covers) - share
    count = x.shape[axis] - 1
    out = F.interpolate(x, scale_factor=(2, 1) if axis == 2 else (1, 2), mode="nearest")
    pairs = torch.unflatten(out, axis, (-1, 2))
    steps = x.diff(dim=axis)
    pairs.select(axis + 1, 0).narrow(axis, 1, count).sub_(steps * share.narrow(axis, 1, count))
    pairs.select(axis + 1, 1).narrow(axis, 0, count).add_(steps * rest.narrow(axis, 0, count))
    return out


class _NotKnownError(Exception):
    """A statistic has to be gathered before the network can go on."""


class TileFacts(Facts):
    """Of one tile of a survey: a statistic that is not known yet is measured on the part kept, and ends the stage.

    found: samples and value of the statistics measured on this tile.
    """

    def __init__(self, tile: Tensor, context: Context, planes: int, rows: Span, columns: Span) -> None:
        super().__init__(tile, context, planes)
        self._axes = (rows, columns)
        self.found: dict[Statistic, tuple[int, Tensor]] = {}

    def statistic(self, which: Statistic, x: Tensor) -> Tensor:
        if which.name in self._known:
            return self._known[which.name]
        own = self.kept(x)
        self.found[which] = (own.shape[2] * own.shape[3], which.measured(own))
        raise _NotKnownError

    def each(self, calls: Iterable[Callable[[], Tensor]]) -> Iterator[Tensor]:
        """One that lacks a statistic does not keep the others from measuring theirs."""
        lacking = False
        for call in calls:
            try:
                result = call()
            except _NotKnownError:  # not kept: with it would stay what its frames hold
                lacking = True
            else:
                yield result
        if lacking:
            raise _NotKnownError

    def kept(self, x: Tensor) -> Tensor:
        """Of the tile's x what no other tile keeps."""
        covers = self._covers(x)
        origins = [axis.window.start for axis in self._axes]
        rows, columns = (
            slice((axis.kept.start - origin) // covers, (axis.kept.stop - origin) // covers)
            for axis, origin in zip(self._axes, origins, strict=True)
        )
        return x[:, :, rows, columns]

    def place(self, x: Tensor) -> tuple[slice, slice]:
        """Where in the whole picture's x that part lies."""
        covers = self._covers(x)
        rows, columns = (slice(axis.kept.start // covers, axis.kept.stop // covers) for axis in self._axes)
        return rows, columns


Stage = Callable[[Tensor, TileFacts], Tensor]
"""Computes a map of features for a tile."""


class Survey:
    """Goes over the tiles of a whole (1, planes, H, W) picture to find its `context`, stage by stage.

    tiling: of a single stage. check: called before each tile.
    """

    def __init__(self, image: Windows, tiling: Tiling, tile: int, check: Check) -> None:
        self.context: dict[str, Tensor] = {"sides": torch.tensor([image.shape[2:]])}
        self._planes = image.shape[1]
        self._image = Located(image)
        self._tiles = list(product(*(spans(side, tile, tiling) for side in image.shape[2:])))
        self._check = check

    def gather(self, stage: Stage, *parts: nn.Module) -> None:
        """Finds all statistics in these parts of the network; `stage` asks for them."""
        wanted = {module.name for part in parts for module in part.modules() if isinstance(module, Statistic)}
        while wanted - self.context.keys():
            found: dict[Statistic, list[tuple[int, Tensor]]] = {}
            for tile, facts in self._each_tile():
                try:
                    stage(tile, facts)
                except _NotKnownError:
                    for which, value in facts.found.items():
                        found.setdefault(which, []).append(value)
            if not found:
                raise WrongStateError(f"the stage asks for no {min(wanted - self.context.keys())}")
            for which, values in found.items():
                self.context[which.name] = which.merged(*zip(*values, strict=True))

    def mapped(self, stage: Stage) -> Tensor:
        """What `stage` gives for the whole picture, once its statistics are known."""
        whole: Tensor | None = None
        for tile, facts in self._each_tile():
            x = stage(tile, facts)
            rows, columns = facts.place(x)
            if whole is None:
                covers = tile.shape[2] // x.shape[2]
                height, width = (side // covers for side in self._image.shape[2:])
                shape = (1, x.shape[1], height, width)
                whole = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
            whole[:, :, rows, columns] = facts.kept(x)
        assert whole is not None, "a picture has a tile"
        return whole

    def _each_tile(self) -> Iterator[tuple[Tensor, TileFacts]]:
        for rows, columns in self._tiles:
            self._check()
            tile = self._image[:, :, rows.window, columns.window]
            yield tile[:, : self._planes], TileFacts(tile, self.context, self._planes, rows, columns)
