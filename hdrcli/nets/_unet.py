"""The small U-Net under this project's own networks.

Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015; with residual blocks and skips that are added, not concatenated.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._fused import NormedConv2d, active
from hdrcli.tiling import everything, within


class Residual(nn.Module):
    """relu(x + conv(relu(conv(x)))), both 3x3; with `norm`, each convolution is followed by batch normalisation.

    x may be overwritten.
    """

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        self.first = conv(width, width, norm=norm)
        self.second = conv(width, width, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return active(self.second, active(self.first, x), onto=x)


class UNet(nn.Module):
    """(N, inputs, H, W) to (N, widths[0], H, W); H and W are multiples of 2^(len(widths) - 1).

    A vector of `summary` numbers per picture may be added at the bottom, where the field of view is widest.
    halving: it takes pictures of twice the height and width and begins at half resolution, as if pixels were unshuffled
    first. smooth: coarse features are interpolated, which leaves no blocks where the finer ones say little.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        *,
        norm: bool = False,
        summary: int = 0,
        halving: bool = False,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self._upsampling = "bilinear" if smooth else "nearest"
        steps = list(pairwise(widths))
        self.enter = conv(inputs, widths[0], norm=norm, halving=halving)
        self.encode = nn.ModuleList(Residual(width, norm=norm) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(above, below, 2, stride=2) for above, below in steps)
        self.up = nn.ModuleList(nn.Conv2d(below, above, 1) for above, below in steps)
        self.decode = nn.ModuleList(Residual(width, norm=norm) for width in widths[:-1])
        self.summary = nn.Linear(summary, widths[-1]) if summary else None

    def forward(
        self, seen: Callable[[], Tensor], parts: Sequence[Sequence[slice]], summary: Tensor | None = None
    ) -> Tensor:
        """seen: makes the input, so that nobody holds it once it has entered. parts: what levels make, see `made`."""
        x: Tensor = active(self.enter, seen())
        skips = []
        for block, down in zip(self.encode, self.down, strict=False):
            x = block(x)
            skips.append(x)
            x = down(x)
        if self.summary is not None and summary is not None:
            x = x + self.summary(summary)[:, :, None, None]
        x = self.encode[-1](x)
        there: Sequence[slice] = everything(x)
        for part, block, up in zip(reversed(parts), reversed(self.decode), reversed(self.up), strict=True):
            rows, columns = part
            x = up(x)[:, :, *map(within, map(halved, part), there)]
            x = block(F.interpolate(x, scale_factor=2.0, mode=self._upsampling).add_(skips.pop()[:, :, rows, columns]))
            there = part
        return x


def at_full_resolution(
    unet: UNet,
    head: nn.Module,
    seen: Callable[[], Tensor],
    size: Sequence[int],
    kept: Sequence[slice],
    summary: Tensor | None = None,
) -> Tensor:
    """What is kept of what a `halving` U-Net and its head make of pictures of a size, four sites of a block at a time.

    seen, summary: as in `UNet.forward`. kept: rows and columns, with even ends.
    """
    halves = [halved(span) for span in kept]
    parts = made([side // 2 for side in size], halves, len(unet.encode))
    x = head(unet(seen, parts, summary))
    return F.pixel_shuffle(x[:, :, *map(within, halves, parts[0])], 2)


def halved(span: slice) -> slice:
    """A span with even ends at half the resolution."""
    return slice(span.start // 2, span.stop // 2)


def made(sides: Sequence[int], kept: Sequence[slice], levels: int) -> list[list[slice]]:
    """Rows and columns that each level of a `UNet` has to make of an output of those sides; finest level first.

    So that the rows and columns that are `kept`, and one pixel around them, come out right: at the ends of what is
    made, interpolation spoils one pixel and each of two convolutions another. The bottom level is made whole.
    """
    along = [_made(side, span, levels) for side, span in zip(sides, kept, strict=True)]
    return [list(level) for level in zip(*along, strict=True)]


def _made(length: int, kept: slice, levels: int) -> list[slice]:
    spans = []
    first, end = kept.start - 1, kept.stop + 1
    for _ in range(levels - 1):
        length //= 2
        first, end = max(first - 3, 0) // 2, min(-(-(end + 3) // 2), length)
        spans.append(slice(2 * first, 2 * end))
    return spans


def reach(levels: int, *, smooth: bool = False) -> int:
    """How far an output pixel of a `UNet` with that many levels sees, in its input pixels."""
    return max(_sight(pixel, levels, smooth) for pixel in range(2 ** (levels - 1)))


def _sight(pixel: int, levels: int, smooth: bool) -> int:
    first = last = pixel
    for _ in range(levels - 1):  # decoder: a block, then interpolation
        first, last = first - 2, last + 2
        first, last = ((first - 1) // 2, (last + 1) // 2) if smooth else (first // 2, last // 2)
    first, last = first - 2, last + 2  # the bottom block
    for _ in range(levels - 1):  # encoder: 2x2 pixels of the level above, then its block
        first, last = 2 * first - 2, 2 * last + 1 + 2
    return max(pixel - first, last - pixel) + 1  # the entry


def conv(inputs: int, outputs: int, *, norm: bool, halving: bool = False) -> nn.Module:
    """A zero-padded 3x3 convolution, with batch normalisation in place of its bias if `norm`.

    halving: a 6x6 one in steps of 2 instead, which is a 3x3 one of unshuffled pixels without the time to unshuffle.
    """
    scale = 2 if halving else 1
    layer = nn.Conv2d(inputs, outputs, 3 * scale, stride=scale, padding=scale, bias=not norm)
    return NormedConv2d(layer, nn.BatchNorm2d(outputs)) if norm else layer
