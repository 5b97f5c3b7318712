"""Colours of pixels of which some channels are clipped, from those around them.

Few pixels of most pictures are clipped: what is done to them is done to tables of them, (3, K).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hdrcli.nets._quick import mean_of_blocks, single, sum_of_3

BLOCK = 2  # rows and columns that share what is known of the colours around them

_EVERY = 4  # pixels: one row and column of so many is looked at
_APART = (1, 1, 2, 3)  # steps at which neighbours are averaged, one after the other: a smooth window
_BRIGHT = 128 / 255  # code: darker pixels tell nothing about highlights
_FAINTEST = 1 / 64  # light added before logarithms, in parts of what clips
_SPREAD = 0.003  # squared stops: colours that vary less are all alike
_ENOUGH = 0.3  # of the window has to be known
_DOUBT = 0.08  # stops: colours that are so sure count as much as the light that is there
_STRONG, _PALE = 100 / 255, 160 / 255  # code of the darkest channel: a colour is kept, or evened out


class Clipped:
    """The K pixels of a picture of which a channel is clipped.

    clipped: (N, 3, H, W), above 0 where it is.
    """

    def __init__(self, clipped: Tensor) -> None:
        _, _, self.height, self.width = clipped.shape
        self.places = (clipped.contiguous().amax(dim=1) > 0).flatten().nonzero()[:, 0]

    def of(self, x: Tensor, cell: int = 1) -> Tensor:
        """Their values in (N, C, H / cell, W / cell): (C, K)."""
        places = self.places
        if cell > 1:
            row, column = places // self.width, places % self.width  # the rows of all pictures
            places = row // cell * x.shape[3] + column // cell
        return single(_rows(x).flatten(0, 2).index_select(0, places).T.contiguous())

    def put(self, x: Tensor, pixels: Tensor) -> Tensor:
        """A picture (N, C, H, W) with other values (C, K) for them."""
        rows = _rows(x)
        return rows.flatten(0, 2).index_copy(0, self.places, pixels.T).view(rows.shape).movedim(3, 1)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, H, W, C)."""
    return x.movedim(1, 3).contiguous()


def ratios(linear: Tensor, codes: Tensor, clipped: Tensor) -> tuple[Tensor, Tensor]:
    """By how many stops R lies above G, G above B and B above R around each block, and how sure that is.

    All (N, 3, H, W), H and W multiples of 4; gives two (N, 3, H / 2, W / 2): means over bright unclipped pixels, at
    most 28 away, and the inverse of their variance, smaller where there are few.
    """
    some = slice(_EVERY // 2, None, _EVERY)
    linear, codes, clipped = (x[:, :, some, some].contiguous() for x in (linear, codes, clipped))
    free = clipped == 0
    known = free & free.roll(-1, 1) & (codes.maximum(codes.roll(-1, 1)) >= _BRIGHT)
    stops = torch.log2(linear + _FAINTEST)
    above = (stops - stops.roll(-1, 1)) * known
    share, mean, square = _around(torch.cat([known.to(above.dtype), above, above.square()], dim=1)).chunk(3, dim=1)
    count = share.clamp(min=1e-6)
    mean = mean / count
    variance = (square / count - mean.square()).clamp(min=0)
    sure = (share / _ENOUGH).clamp(max=1) / (variance + _SPREAD)
    doubled = F.interpolate(torch.cat([mean, sure], dim=1), scale_factor=_EVERY // BLOCK, mode="bilinear")
    return doubled[:, :3], doubled[:, 3:]


def _around(cells: Tensor) -> Tensor:
    """Means over smooth windows; what lies outside the picture counts as zero."""
    sums = F.pad(cells, [sum(_APART)] * 4)
    for axis in (2, 3):
        for apart in _APART:
            sums = sum_of_3(sums, axis, apart)
    return sums / 9.0 ** len(_APART)


def followed(light: Tensor, linear: Tensor, clipped: Tensor, above: Tensor, sure: Tensor) -> Tensor:
    """Light whose clipped channels follow those that are not, the more so the surer the `ratios` around it are.

    So light that is added begins as gently as a surface around it rises. All (3, K); linear: the light before any was
    added.
    """
    stops, free = torch.log2(linear + _FAINTEST), 1 - clipped
    by_next, by_last = sure * free.roll(-1, 0), (sure * free).roll(1, 0)
    weight = by_next + by_last
    told = (by_next * (stops.roll(-1, 0) + above) + by_last * (stops - above).roll(1, 0)) / weight.clamp(min=1e-6)
    told = (torch.exp2(told.maximum(stops)) - _FAINTEST).clamp(min=_FAINTEST)
    share = weight / (weight + 1 / _DOUBT**2) * clipped
    return light * torch.exp2(share * torch.log2(told / light.clamp(min=_FAINTEST)))


def evened(light: Tensor, codes: Tensor, clipped: Tensor, colour: Tensor) -> Tensor:
    """Light that has the `colours` around it where it is clipped, so far as it is pale; its mean stays. All (3, K).

    Noise and JPEG leave some channels just below clipping, pixel by pixel, which would show as coloured specks.
    """
    pale = ((codes.amin(dim=0) - _STRONG) / (_PALE - _STRONG)).clamp(0, 1) * clipped.amax(dim=0)
    return torch.lerp(light, colour * (light.sum(dim=0) / colour.sum(dim=0).clamp(min=1e-6)), pale)


def colours(light: Tensor) -> Tensor:
    """The colour of clipped pixels in 6 x 6 around each block of 2 x 2: (N, C, H, W) to (N, C, H / 2, W / 2).

    light: zero where nothing is clipped. Only ratios of channels mean something.
    """
    blocks = F.pad(mean_of_blocks((light[:, :, row::BLOCK] for row in range(BLOCK)), BLOCK), (1, 1, 1, 1))
    return sum_of_3(sum_of_3(blocks, 2), 3)
