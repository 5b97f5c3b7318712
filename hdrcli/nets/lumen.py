"""lumen: our own small network for `expand`: no noise, one response curve per picture, light added where it is clipped.

The curve is guessed from statistics of the whole picture (the idea of SingleHDR, Liu et al. 2020, and of "Radiometric
calibration from a single image", Lin et al. 2004): histograms of colour, of gradients and of second differences by
brightness. A small U-Net takes noise away before the curve. Another one adds light in the channels that are clipped,
specks within them included; these follow the others where colours around them are alike. Colours of pixels that are
clipped in part are evened out unless they are strong. All other numbers are the curve's of the cleaned codes.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._cleaner import Cleaner
from hdrcli.nets._colours import BLOCK, Clipped, colours, evened, followed, ratios
from hdrcli.nets._quick import by_bands, cast, mean_of_9_blocks, mean_of_blocks, single
from hdrcli.nets._unet import UNet, at_full_resolution, halved, reach
from hdrcli.network import Context, NetSpec, Network
from hdrcli.tiling import Kept, Tiling, Windows, everything, kept_of, widened, within

COEFFICIENTS = 11  # of the response curve
MEMBERS = 4  # of the curve estimator
SUMMARY = 64
_LEVELS, _TONES, _SATURATIONS, _BRIGHTNESSES = 32, 8, 8, 8
_STEPS = (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 9.5, 13.5, 19.5, 28.5, 40.5, 60.5, 90.5, 140.5)  # code values of 255
COLOUR_FEATURES = 5 * _LEVELS + _TONES * _SATURATIONS
DETAIL_FEATURES = _BRIGHTNESSES * (len(_STEPS) + 1)
FEATURES = COLOUR_FEATURES + 2 * DETAIL_FEATURES
_UNCLIPPED = 249.5 / 255
_CELL = 4  # side, in pixels, of what is looked at for specks in clipped parts of a picture
_MOST = 0.6  # of the neighbours of a speck are clipped
_SPECKS = 30 / 5  # how far specks may lie below, in parts of the way from unclipped to clipped
_AROUND = 4  # pixels on either side over which colours are evened out, rounded up to a whole block
_BAND = 16  # rows of the averaged picture that are made at a time
_STUDIED = 512 * 384  # pixels of the picture whose statistics are taken; larger pictures are averaged down to it


class Lumen(Network):
    """(N, 3, H, W) sRGB-like code values in [0, 1] to linear RGB, 1.0 where the camera clips."""

    curve_mean: Tensor
    curve_basis: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self, widths: Sequence[int] = (32, 48, 64, 96), hidden: int = 512, cleaner: Sequence[int] = (24, 48)
    ) -> None:
        super().__init__()
        lattice = 2 ** len(widths)  # the U-Net works at half resolution
        halo = 2 * reach(len(widths), smooth=True) + 3 + 2 * _CELL + _AROUND
        self.tiling = Tiling(multiple_of=lattice, halo=halo, tile=1024, minimum=lattice)
        self.estimator = CurveEstimator(hidden)
        self.summary = nn.Linear(FEATURES, SUMMARY)
        self.unet = UNet(9, widths, norm=True, summary=SUMMARY, halving=True, smooth=True)
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, -1.0)  # type: ignore[arg-type]
        self.cleaner = Cleaner(cleaner)
        self.register_buffer("curve_mean", torch.zeros(255))
        self.register_buffer("curve_basis", torch.zeros(COEFFICIENTS, 255))
        self.register_buffer("feature_mean", torch.zeros(FEATURES))
        self.register_buffer("feature_scale", torch.ones(FEATURES))

    def prepare(self, image: Windows) -> Context:
        seen = self.normalise(features(image))
        return {
            "curve": self.curve(self.estimator(seen)),
            "summary": torch.tanh(self.summary(seen)),
            "noise": torch.ones(1, 1, 1, 1, device=seen.device),
        }

    def normalise(self, found: Tensor) -> Tensor:
        """Raw statistics, (N, 464), to zero mean and unit variance over the training pictures, outliers cut at 5."""
        return ((found - self.feature_mean) / self.feature_scale).clamp(-5, 5)

    def curve(self, coefficients: Tensor) -> Tensor:
        """(N, 11) coefficients to (N, 256) light at each 8-bit code: always rising, from 0 to 1."""
        steps = torch.softmax(self.curve_mean + coefficients.float() @ self.curve_basis, dim=1)
        return F.pad(torch.cumsum(steps, dim=1), (1, 0))

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        return self.part(tile, context, everything(tile))

    def part(self, tile: Tensor, context: Context, kept: Kept) -> Tensor:
        around = widened(kept, _AROUND, tile)
        clipped = clipping(tile)
        codes, mask = (kept_of(picture, around, 1) for picture in (tile, clipped))
        noise = self.cleaner(tile, around) if _exceeds(context["noise"], 0) else torch.zeros_like(mask)
        known = [codes, mask, noise]
        curve, strength = context["curve"], context["noise"].sqrt()
        if _exceeds(tile, _UNCLIPPED):
            linear = by_bands(partial(linearise, curve=curve), tile)
            halves = [halved(span) for span in around]
            known += (kept_of(picture, halves, 1) for picture in ratios(linear, tile, clipped))
            known.append(self.raised(tile, linear, clipped, context["summary"], around))
        lit = by_bands(partial(_lit, curve=curve, strength=strength), *known, around=_AROUND)
        return kept_of(lit, map(within, kept, around), 1)

    def raised(self, codes: Tensor, linear: Tensor, clipped: Tensor, summary: Tensor, kept: Kept) -> Tensor:
        """What is kept of the numbers that tell how much light is added: (N, 3, H, W)."""

        def seen() -> Tensor:
            return by_bands(_seen, codes, linear, clipped)

        return at_full_resolution(self.unet, self.head, seen, codes.shape[2:], kept, summary)


def _seen(codes: Tensor, linear: Tensor, clipped: Tensor) -> Tensor:
    """What the U-Net sees: (N, 9, H, W)."""
    return torch.cat([cast(x) for x in (codes, torch.log2(linear + 1 / 64).div_(6), clipped)], dim=1)


def _lit(codes: Tensor, clipped: Tensor, noise: Tensor, *found: Tensor, curve: Tensor, strength: Tensor) -> Tensor:
    linear = linearise(cleaned(codes, clipped, noise * strength), curve)
    return relit(linear, codes, clipped, *found) if found and _exceeds(clipped, 0) else linear


def cleaned(codes: Tensor, clipped: Tensor, noise: Tensor) -> Tensor:
    """(N, 3, H, W) codes without their noise, but for what is clipped."""
    return torch.addcmul(codes, single(clipped) - 1, single(noise)).clamp(0, 1)


def relit(linear: Tensor, codes: Tensor, clipped: Tensor, above: Tensor, sure: Tensor, raised: Tensor) -> Tensor:
    """(N, 3, H, W) light with more of it in the channels that are clipped; above, sure: the `ratios` in the picture."""
    pixels = Clipped(clipped)
    base, code, mask = (pixels.of(x) for x in (linear, codes, clipped))
    light = base * torch.exp(F.softplus(pixels.of(raised)).clamp(max=12) * mask)
    light = followed(light, base, mask, pixels.of(above, BLOCK), pixels.of(sure, BLOCK))
    colour = colours(pixels.put(torch.zeros_like(linear), light * mask.amax(dim=0)))
    light = evened(light, code, mask, pixels.of(colour, BLOCK))
    return pixels.put(linear, light.maximum(base * mask))


def _exceeds(x: Tensor, limit: float) -> bool:
    return torch.compiler.is_compiling() or bool(x.amax() > limit)  # a compiled network has no branches


class CurveEstimator(nn.Module):
    """Normalised statistics of whole pictures, (N, 464), to (N, 11) coefficients of their response curves.

    The mean of four small networks, each trained without a quarter of the scenes, so that for every training picture
    there is one that has not seen its scene (cross-fitting).
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(_member(hidden) for _ in range(MEMBERS))

    def forward(self, found: Tensor) -> Tensor:
        return torch.stack([member(found) for member in self.members]).mean(dim=0)


def _member(hidden: int) -> nn.Sequential:
    sizes = (FEATURES, hidden, hidden, hidden)
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.2)) for a, b in pairwise(sizes)]
    return nn.Sequential(*layers, nn.Linear(hidden, COEFFICIENTS))


def clipping(image: Tensor) -> Tensor:
    """How far each channel of code values in [0, 1] is clipped: 0 up to code 249, 1 from 254.5 on.

    Where most of the neighbours are clipped it begins up to 30 codes lower: JPEG leaves specks in what was clipped.
    image: (N, 3, H, W), H and W multiples of 4.
    """
    clipped = (image - _UNCLIPPED).mul_(255 / 5)
    around = mean_of_9_blocks((clipped[:, :, row::_CELL].clamp(0, 1) for row in range(_CELL)), _CELL)
    lower = ((around - _MOST) * (_SPECKS / (1 - _MOST))).clamp_(0, _SPECKS).repeat_interleave(_CELL, dim=3)
    lower = lower.contiguous(memory_format=torch.channels_last)
    for row in range(_CELL):
        clipped[:, :, row::_CELL] += lower
    return cast(clipped.clamp_(0, 1))


def linearise(image: Tensor, curve: Tensor) -> Tensor:
    """Looks code values in [0, 1], (N, C, H, W) in any order, up in (N or 1, 256) curves, interpolated linearly."""
    position = image * 255
    below = position.floor().clamp_(0, 254)
    position -= below
    tables = curve.expand(len(image), -1)
    steps = F.pad(tables.diff(dim=1), (0, 1))
    first = 256 * torch.arange(len(image), device=image.device, dtype=torch.int32)
    index = (below.int() + first[:, None, None, None]).flatten()
    low, step = (values.reshape(-1).index_select(0, index) for values in (tables, steps))
    return torch.addcmul(low, step, position.flatten()).view(image.shape)


def features(image: Windows) -> Tensor:
    """Statistics of one whole picture, (1, 3, H, W) code values in [0, 1]; returns (1, 464).

    Square roots of histograms: R, G, B, largest and smallest channel (32 bins each); brightness by saturation (8 x 8);
    first and second differences along every other row, each by brightness (8 x 15). Large pictures are averaged down
    first, so that the statistics of one subject do not depend on the resolution.
    """
    codes = _averaged(image)[0] * 255
    largest, smallest = codes.amax(dim=0), codes.amin(dim=0)
    saturation = (largest - smallest) / largest.clamp(min=1)
    channels = torch.cat([codes, largest[None], smallest[None]])
    plain = [_histogram(channel / 256 * _LEVELS, _LEVELS) for channel in channels]
    joint = (largest / 256 * _TONES).int() * _SATURATIONS + (saturation * _SATURATIONS).int().clamp(
        max=_SATURATIONS - 1
    )
    tones = _histogram(joint, _TONES * _SATURATIONS)
    first = _detail(codes[:, ::2], codes.diff(dim=2)[:, ::2])
    second = _detail(codes[:, ::2], codes.diff(n=2, dim=2)[:, ::2])
    return torch.cat([*plain, tones, first, second])[None]


def _averaged(image: Windows) -> Tensor:
    """The picture at about the size that is studied, made band by band."""
    height, width = image.shape[2:]
    factor = min(max(1, round((height * width / _STUDIED) ** 0.5)), height, width)
    end = height // factor * factor
    step = factor * _BAND
    bands = (image[:, :, top : min(top + step, end), :width] for top in range(0, end, step))
    means = [mean_of_blocks((band[:, :, row::factor] for row in range(factor)), factor) for band in bands]
    return torch.cat(means, dim=2)


def _histogram(bins: Tensor, count: int) -> Tensor:
    counts = torch.bincount(bins.int().flatten().clamp(0, count - 1), minlength=count)
    return (counts / max(bins.numel(), 1)).sqrt()


def _detail(codes: Tensor, differences: Tensor) -> Tensor:
    """How large differences along rows are at each brightness, as roots of one histogram for each brightness."""
    brightness = (codes[:, :, : differences.shape[2]] / 256 * _BRIGHTNESSES).int()
    bins = len(_STEPS) + 1
    sizes = torch.bucketize(torch.arange(511.0), torch.tensor(_STEPS), out_int32=True).to(codes.device)
    rounded = (differences.abs() - 0.5).ceil_().int()  # all steps lie between whole numbers
    cell = brightness.flatten() * bins + sizes.index_select(0, rounded.flatten())
    counts = torch.bincount(cell.clamp(0, _BRIGHTNESSES * bins - 1), minlength=_BRIGHTNESSES * bins)
    table = counts.view(_BRIGHTNESSES, bins)
    return (table / table.sum(dim=1, keepdim=True).clamp(min=50)).sqrt().flatten()


SPEC = NetSpec(
    paper="our own; curve from picture statistics after Lin et al., CVPR 2004, and Liu et al., CVPR 2020",
    task="expand",
    gives="linear",
    measures_noise=True,
    build=Lumen,
    tiny={"widths": (8, 12, 16), "hidden": 16, "cleaner": (4, 8)},
)
