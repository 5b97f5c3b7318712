"""Operators made so that they are quick on a CPU; equal to torch's own but for rounding."""

from collections.abc import Callable, Iterable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

_BAND = 64  # rows: what is made of them on the way stays in a processor's cache


def asinh(x: Tensor) -> Tensor:
    """The inverse hyperbolic sine; torch's own takes twenty times as long."""
    size = x.abs()
    square = size.square()
    return torch.copysign(torch.log1p(size + square / (1 + torch.sqrt(1 + square))), x)


def single(x: Tensor) -> Tensor:
    """x, at least in single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cast(x: Tensor) -> Tensor:
    """What a convolution makes of its input by itself where autocast is on; made before, x itself takes no memory."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def sum_of_3(x: Tensor, axis: int, apart: int = 1) -> Tensor:
    """Of values that lie so far apart along an axis, which becomes shorter by two such steps."""
    count = x.shape[axis] - 2 * apart
    return x.narrow(axis, 0, count) + x.narrow(axis, apart, count) + x.narrow(axis, 2 * apart, count)


def mean_of_blocks(rows: Iterable[Tensor], side: int) -> Tensor:
    """What F.avg_pool2d gives, from the first rows of all blocks, their second ones and so on, in a fifth of its time.

    Columns that make no whole block are left out.
    """
    row = reduce(torch.add, rows)
    end = row.shape[3] // side * side
    return reduce(torch.add, (row[..., first:end:side] for first in range(side))) / side**2


def mean_of_9_blocks(rows: Iterable[Tensor], side: int) -> Tensor:
    """Of each block and those around it, as far as there are any; rows as in `mean_of_blocks`."""
    return F.avg_pool2d(mean_of_blocks(rows, side), 3, stride=1, padding=1, count_include_pad=False)


def mean_of(work: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    """The means over a (N, C, H, W) picture of what a function of each pixel alone makes of it: (N, C).

    On a CPU band by band, as in `by_bands`.
    """
    if _whole(picture):
        return work(picture).mean(dim=(2, 3))
    height, width = picture.shape[2:]
    sums = [work(picture[:, :, top : top + _BAND]).sum(dim=(2, 3)) for top in range(0, height, _BAND)]
    return torch.stack(sums).sum(dim=0) / (height * width)


def by_bands(work: Callable[..., Tensor], *pictures: Tensor, around: int = 0) -> Tensor:
    """What a function of each pixel and of `around` pixels around it makes of (N, C, H, W) pictures of one size.

    It may give more rows and columns for each, as many more everywhere, and pictures after the first may have one for
    every few of its own. On a CPU band by band, so that what it needs on the way takes next to no memory.
    """
    if _whole(pictures[0]):
        return work(*pictures)
    height = pictures[0].shape[2]
    whole = None
    for top in range(0, height, _BAND):
        end = min(top + _BAND, height)
        above, below = max(top - around, 0), min(end + around, height)
        parts = (height // picture.shape[2] for picture in pictures)
        band = work(
            *(picture[:, :, above // part : below // part] for picture, part in zip(pictures, parts, strict=True))
        )
        scale = band.shape[2] // (below - above)
        if whole is None:
            shape = *band.shape[:2], scale * height, band.shape[3]
            whole = torch.empty(shape, dtype=band.dtype, memory_format=torch.channels_last)
        whole[:, :, scale * top : scale * end] = band[:, :, scale * (top - above) : scale * (end - above)]
    assert whole is not None, "a picture has rows"
    return whole


def _whole(picture: Tensor) -> bool:
    """Whether bands would not pay."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or picture.device.type != "cpu"
