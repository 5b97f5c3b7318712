"""The tone of large pictures, for networks that see a fixed number of pixels around each one.

Such a network was trained on views that it saw almost whole. Of a large picture it sees a small part at a time, and how
bright that part should be it cannot know. So the network also runs on the large picture shrunk to the size of those
views, and where the two results differ over many pixels the small one is right.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hdrcli.nets._quick import single
from hdrcli.tiling import Windows, round_up

CELL = 16  # pixels of the result, in rows and columns, that share one difference

_LARGE = 1.5  # times the side of a view
_BLURRED = 5  # cells
_BAND = 512  # rows that are shrunk at a time
_LEAST = 16  # rows and columns of a view


def view(image: Windows, side: int) -> Tensor | None:
    """A (1, C, H, W) picture shrunk to about side x side pixels, both sides multiples of 8; None if it is not large.

    H and W are multiples of 8.
    """
    height, width = image.shape[2:]
    factor = (height * width) ** 0.5 / side
    if factor < _LARGE:
        return None
    step = 2 ** min(int(factor).bit_length() - 1, 3)
    bands = [slice(top, min(top + _BAND, height)) for top in range(0, height, _BAND)]
    shrunk = torch.cat([F.avg_pool2d(image[:, :, band, :width], step) for band in bands], dim=2)
    sides = [max(round_up(round(length / factor), 8), _LEAST) for length in (height, width)]
    return F.interpolate(shrunk, sides, mode="bilinear", antialias=True)


def cells(small: Tensor, height: int, width: int) -> Tensor:
    """The result for the view, resampled to the cells of the result for the whole picture, height x width pixels."""
    return F.interpolate(single(small), (height // CELL, width // CELL), mode="bilinear", antialias=True)


def toned(picture: Tensor, wanted: Tensor) -> Tensor:
    """A (N, C, H, W) picture changed, over many pixels, to what is wanted of its cells, (N, C, H / 16, W / 16)."""
    missing = wanted - F.avg_pool2d(single(picture), CELL)
    smooth = F.avg_pool2d(missing, _BLURRED, stride=1, padding=_BLURRED // 2, count_include_pad=False)
    return picture + F.interpolate(smooth, scale_factor=CELL, mode="bilinear")
