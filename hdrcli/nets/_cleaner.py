"""What cameras do to codes, by noise, denoising, sharpening and JPEG, as a small U-Net sees it.

Ronneberger et al., "U-Net", MICCAI 2015; it predicts noise, not pictures: Zhang et al., "Beyond a Gaussian denoiser",
TIP 2017.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._quick import cast, mean_of_9_blocks
from hdrcli.nets._unet import UNet, at_full_resolution, reach
from hdrcli.tiling import Kept, kept_of, round_up, widened, within

_STEP = 4 / 255  # of codes: what noise is counted in
_BLACK, _DARK = 1 / 255, 3 / 255  # of codes
_CELL = 4  # pixels, in rows and columns, that are black or not
_CONTRAST = 30  # of what the first layer sees before training


class Cleaner(nn.Module):
    """(N, 3, H, W) code values in [0, 1] to what is kept of their noise; H, W and what is kept in multiples of 4."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.halo = round_up(2 * reach(len(widths)) + 3, 2 ** len(widths))
        self.unet = UNet(3, widths, norm=True, halving=True)
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.zero_()
            fine = self.unet.enter.get_parameter("0.weight")[widths[0] // 6 :]  # these begin with differences of pixels
            fine.sub_(fine.mean(dim=(2, 3), keepdim=True)).mul_(_CONTRAST)

    def forward(self, codes: Tensor, kept: Kept) -> Tensor:
        near = widened(kept, self.halo, codes)
        codes = kept_of(codes, near, 1)
        inside = [within(span, outer) for span, outer in zip(kept, near, strict=True)]
        noise = at_full_resolution(self.unet, self.head, lambda: cast(codes), codes.shape[2:], inside) * _STEP
        cells = [slice(span.start // _CELL, span.stop // _CELL) for span in inside]
        return noise * F.interpolate(kept_of(_lit(codes), cells, 1).to(noise.dtype), scale_factor=float(_CELL))


def _lit(codes: Tensor) -> Tensor:
    """0 in cells around which all is black, 1 where it is not: what is black stays as it is."""
    around = mean_of_9_blocks((codes[:, :, row::_CELL] for row in range(_CELL)), _CELL)
    return ((around - _BLACK) / (_DARK - _BLACK)).clamp(0, 1)
