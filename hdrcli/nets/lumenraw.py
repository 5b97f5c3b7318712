"""lumenraw: our own small network for `develop`, from a canonical mosaic to a clean linear picture.

A U-Net on the packed mosaic predicts what a plain bilinear demosaic gets wrong: noise, colour noise above all, and the
detail between the Bayer sites. Light is coded by asinh, so that shadows, where the finished look is decided, count as
much as highlights. A noise model fitted to the whole picture tells the network what to trust. The finished look is
made from the linear result by a classical operator (`hdrcli.tonemap`).

Noise estimate: Immerkaer, "Fast noise variance estimation", CVIU 64, 1996, per block, in the quietest blocks of each
brightness; fitted by variance = a light + b.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._quick import asinh, by_bands, cast, sum_of_3
from hdrcli.nets._unet import UNet, made, reach
from hdrcli.network import Context, NetSpec, Network
from hdrcli.tiling import Kept, Tiling, Windows, everything, kept_of, widened, within

_BLOCK = 8  # packed pixels
_BAND = 32  # rows of blocks that are measured at a time
_BINS = 12  # of brightness
_QUIET = 0.3  # quantile of the blocks of one brightness that is taken for noise alone
_GRID = 0.1  # in code values: a stronger grid is taken for detail
_NEAR = 2  # blocks around a pixel that say how strong a grid is there
_AROUND = 1 + _NEAR  # and those that they are demosaiced from
_BLUE, _GR, _RED, _GB = range(4)


class LumenRaw(Network):
    """(N, 4, h, w) canonical planes B, Gr, R, Gb to (N, 3, 2h, 2w) linear BT.709 RGB, mid-grey at 0.18."""

    planes = 4

    def __init__(self, widths: Sequence[int] = (32, 48, 96, 128)) -> None:
        super().__init__()
        lattice = 2 ** (len(widths) - 1)
        halo = reach(len(widths)) + 2 + _NEAR
        self.tiling = Tiling(multiple_of=lattice, halo=halo, scale=2, tile=768, minimum=lattice)
        self.unet = UNet(4 + 3, widths)
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def prepare(self, image: Windows) -> Context:
        return {"noise": noise_model(image)}

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        return self.part(tile, context, everything(tile))

    def part(self, tile: Tensor, context: Context, kept: Kept) -> Tensor:
        def seen() -> Tensor:
            return by_bands(partial(_seen, noise=context["noise"]), tile, around=1)

        around = widened(kept, _AROUND, tile)
        parts = made(tile.shape[2:], around, len(self.unet.encode))
        correction = self.head(self.unet(seen, parts))[:, :, *map(within, around, parts[0])]
        picture = by_bands(_corrected, tile[:, :, *around], correction, around=_AROUND)
        return kept_of(picture, map(within, kept, around), 2)


def _seen(planes: Tensor, noise: Tensor) -> Tensor:
    """What the U-Net sees: (N, 7, h, w)."""
    return torch.cat([cast(encode(planes)), cast(noise_map(planes, noise))], dim=1)


def _corrected(planes: Tensor, correction: Tensor) -> Tensor:
    """(N, 4, h, w) planes demosaiced, and then changed by (N, 12, h, w) in code values, to (N, 3, 2h, 2w)."""
    code = encode(demosaic(planes)).add_(correction)
    return F.pixel_shuffle(decode(without_grid(code)), 2)


def without_grid(codes: Tensor) -> Tensor:
    """(N, 4 C, h, w) code values of C colours at the four sites of a block, less a grid of two pixels.

    Light that leaks into one of the greens makes one, and a U-Net makes one of colours stronger than those it learned
    from. It is what sites differ by over 3x3 blocks beside the slope of light, up to 0.1.
    """
    a, b, c, d = torch.unflatten(F.pad(codes, (_NEAR,) * 4, mode="replicate"), 1, (-1, 4)).unbind(2)
    top, bottom = a + b, c + d
    level = top + bottom
    across = (2 * (a + c)).sub_(level)[..., 1:-1, 1:-1]
    down = top.sub_(bottom)[..., 1:-1, 1:-1]
    crossed = (a - b).sub_(c).add_(d)[..., 1:-1, 1:-1]
    across += (level[..., 1:-1, 2:] - level[..., 1:-1, :-2]).div_(8)
    down += (level[..., 2:, 1:-1] - level[..., :-2, 1:-1]).div_(8)
    across, down, crossed = (_mean_of_9(x).div_(4).clamp_(-_GRID, _GRID) for x in (across, down, crossed))
    both, either = across + down, across - down
    a, b, c, d = torch.unflatten(codes, 1, (-1, 4)).unbind(2)
    sites = [a - both - crossed, b + either + crossed, c - either + crossed, d + both - crossed]
    return torch.stack(sites, dim=2).flatten(1, 2)


def encode(light: Tensor) -> Tensor:
    """Linear light, negatives included, to asinh(20 x) / 4."""
    return asinh(20 * light) / 4


def decode(code: Tensor) -> Tensor:
    """The inverse of `encode`; codes are limited to those of light below about 1000."""
    return torch.sinh(4 * code.clamp(-2.65, 2.65)) / 20


def demosaic(planes: Tensor) -> Tensor:
    """Bilinear interpolation of (N, 4, h, w) planes B, Gr, R, Gb to (N, 12, h, w): unshuffled RGB.

    By sums, not convolutions, so that it stays exact where those are made in reduced precision.
    """
    blue, gr, red, gb = F.pad(planes, (1, 1, 1, 1), mode="replicate").unbind(1)
    right, left, below, above = (_shifted(*step) for step in ((0, 1), (0, -1), (1, 0), (-1, 0)))
    here, below_right, above_left = _shifted(0, 0), _shifted(1, 1), _shifted(-1, -1)
    reds = [
        red[here],
        (red[here] + red[right]) / 2,
        (red[here] + red[below]) / 2,
        (red[here] + red[right] + red[below] + red[below_right]) / 4,
    ]
    greens = [
        (gr[here] + gr[left] + gb[here] + gb[above]) / 4,
        gr[here],
        gb[here],
        (gr[here] + gr[below] + gb[here] + gb[right]) / 4,
    ]
    blues = [
        (blue[here] + blue[left] + blue[above] + blue[above_left]) / 4,
        (blue[here] + blue[above]) / 2,
        (blue[here] + blue[left]) / 2,
        blue[here],
    ]
    return torch.stack([*reds, *greens, *blues], dim=1)


def _shifted(rows: int, columns: int) -> tuple[slice, ...]:
    """Of planes that were padded by one pixel: what lies so many rows below and columns to the right of each pixel."""
    return slice(None), *(slice(1 + step, step - 1 or None) for step in (rows, columns))


def noise_model(planes: Windows) -> Tensor:
    """Fits variance = a light + b to the red, green and blue planes of whole pictures.

    planes: (N, 4, h, w) linear. Returns (N, 3, 2): a and b of each colour, both at least 1e-9.
    """
    height, width = planes.shape[2:]
    block = min(_BLOCK, height - 2, width - 2)
    end = (height - 2) // block * block
    bands = [slice(top, min(top + block * _BAND, end) + 2) for top in range(0, end, block * _BAND)]
    measured = [_blocks(planes[:, :, band, :width], block) for band in bands]
    light, deviation = (torch.cat(parts, dim=2).flatten(2) for parts in zip(*measured, strict=True))
    fits = [
        torch.stack([_fit(x, s) for x, s in zip(*pair, strict=True)]) for pair in zip(light, deviation, strict=True)
    ]
    return torch.stack(fits)


def _blocks(planes: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Mean light and deviation in square blocks, each of red, green and blue; the outermost pixels are left out."""
    colours = planes[:, [_RED, _GR, _BLUE]].float()
    edges = colours.diff(n=2, dim=2).diff(n=2, dim=3).abs_().mul_((torch.pi / 2) ** 0.5 / 6)  # Immerkaer's mask
    return F.avg_pool2d(colours[:, :, 1:-1, 1:-1], block).clamp(min=0), F.avg_pool2d(edges, block)


def _fit(light: Tensor, deviation: Tensor) -> Tensor:
    """Weighted least squares for (a, b) over brightness bins of equal population; (M,), (M,) to (2,)."""
    order = torch.argsort(light)
    groups = [group for group in torch.tensor_split(order, _BINS) if group.numel()]
    x = torch.stack([light[group].mean() for group in groups])
    y = torch.stack([torch.quantile(deviation[group], _QUIET) for group in groups]).square().clamp(min=1e-10)
    weights = y.min() ** 2 / y**2
    weights /= weights.sum()
    light_mean, noise_mean = (weights * x).sum(), (weights * y).sum()
    spread = (weights * (x - light_mean).square()).sum()
    a = (weights * (x - light_mean) * (y - noise_mean)).sum() / spread.clamp(min=1e-12)
    b = noise_mean - a * light_mean
    if a <= 0:
        a, b = torch.zeros_like(a), y.mean()
    elif b <= 0:
        a, b = (weights * x * y).sum() / (weights * x.square()).sum(), torch.zeros_like(b)
    return torch.stack([a, b]).clamp(min=1e-9)


def noise_map(planes: Tensor, noise: Tensor) -> Tensor:
    """The expected noise of each packed pixel in the code domain, on a logarithmic scale; (N, 3, h, w)."""
    light = torch.stack([planes[:, _RED], (planes[:, _GB] + planes[:, _GR]) / 2, planes[:, _BLUE]], dim=1)
    light = _mean_of_9(F.pad(light, (1, 1, 1, 1), mode="replicate")).clamp_(min=0)
    sigma = torch.sqrt(noise[:, :, 0, None, None] * light + noise[:, :, 1, None, None])
    return torch.log2(sigma * 5 / torch.sqrt(1 + (20 * light) ** 2) + 1e-4) / 8 + 0.75


def _mean_of_9(x: Tensor) -> Tensor:
    """Of neighbours; the outermost pixels are left out."""
    return sum_of_3(sum_of_3(x, 2).div_(3), 3).div_(3)


SPEC = NetSpec(
    paper="our own; U-Net after Ronneberger et al., MICCAI 2015",
    task="develop",
    gives="linear",
    feeds=("canonical",),
    measures_noise=True,
    build=LumenRaw,
    tiny={"widths": (8, 12, 16)},
)
