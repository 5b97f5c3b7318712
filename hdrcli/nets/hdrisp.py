"""raw_to_tonemappedHDR: from packed RAW to a finished picture, through five levels of resolution.

        planes - encode1 - - - - - - - - - - - - - - - - - - level 1 - level 0     packed size, twice that
                    \\- encode2 - - - - - - - - - - level 2 -/                      1/2
                          \\- encode3 - - - level 3 -/                              1/4
                                \\- level 4 -/                                      1/8

Normalisation and attention scale features by numbers of the whole picture: means, variances, maxima. `prepare` measures
them once, and all tiles use them instead of their own. Where the whole is too large for memory, `survey` gathers the
same numbers over tiles, from the coarsest level to the finest; of the whole picture it holds the features of a level
until the next one has its own. Doubling the resolution keeps corners on corners, so it depends on where in the picture
a pixel lies: tiles carry their place with them, as `located` gives it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.batch import Check, go_on
from hdrcli.nets import _tone
from hdrcli.nets._fused import convolved
from hdrcli.nets._joined import JoinedConv2d
from hdrcli.nets._quick import by_bands
from hdrcli.nets._torch_checkpoint import import_arrays
from hdrcli.nets._whole import Facts, Located, Statistic, Survey, TileFacts, name_statistics
from hdrcli.nets.lumenraw import encode
from hdrcli.network import Context, NetSpec, Network, StateDict
from hdrcli.tiling import Tiling, Windows, round_up, window_side

_PLANES = 4
_KERNELS = (3, 5, 7, 9)
_HALO, _HALO_OF_TONE = 171, 193
_CELL = _tone.CELL // 2  # in planes
_HALO_OF_STAGE = 34  # of a level, the coarser one being given: level 3 reaches farthest


class HdrIsp(Network):
    """(N, 4, h, w) planes B, Gr, R, Gb to (N, 3, 2h, 2w) sRGB-encoded RGB in (0, 1); h and w are multiples of 8.

    width: channels at packed size, 32 in the paper; twice as many at each level below. coded: the network sees
    asinh-coded planes. skip: the last picture begins with that of level 1, and gets detail from a learned linear
    demosaic of the coded planes, as far as the features trust it. view: side of the views in planes that it was trained
    on; larger pictures have the tone that they have at that size, see `_tone`. Published weights have none of these.
    """

    planes = _PLANES

    def __init__(self, width: int = 32, coded: bool = False, skip: bool = False, view: int = 0) -> None:
        super().__init__()
        w1, w2, w3, w4 = (width << level for level in range(4))
        self.tiling = Tiling(multiple_of=8, halo=_HALO_OF_TONE if view else _HALO, scale=2, tile=1024, minimum=16)
        self.encode1 = _Pair(_PLANES, w1, norm=False)
        self.encode2 = _Pair(w1, w2)
        self.encode3 = _Pair(w2, w3)
        self.level4 = _Coarsest(w3, w4, hidden=width // 2)
        self.level3 = _Coarse(w3, hidden=width // 2)
        self.level2 = _Fine(w2, width, merge=_Pair(len(_KERNELS) * width, w2))
        self.level1 = _Fine(w1, width, merge=_Conv(len(_KERNELS) * width, w1))
        self.up3 = _Conv(w4, w3)
        self.up2 = _Conv(w3, w2)
        self.up1 = _Conv(w2, w1)
        self.up0 = _Conv(w1, w1 // 2)
        self.out = nn.ModuleList(_Conv(inputs, 3, active=False) for inputs in (w1 // 2, w1, w2, w3, w4))
        self.coded, self.view = coded, view
        self.skip = nn.ConvTranspose2d(_PLANES, 3, 6, stride=2, padding=4, bias=False) if skip else None
        self.trust = _Conv(w1 // 2, 3, active=False) if skip else None
        self.surveyed = w3 / 16 + w2 / 4  # the features of levels 3 and 2
        name_statistics(self)

    def prepare(self, image: Windows) -> Context:
        planes = image[:, :, : image.shape[2], : image.shape[3]]
        facts = Facts(planes, {}, _PLANES)
        self._features(planes, facts, 1)
        return facts.noted | self._tone(planes)

    def survey(self, image: Windows, tile: int, check: Check = go_on) -> Context:
        tiling = Tiling(multiple_of=8, halo=_HALO_OF_STAGE)
        window = max(window_side(side, tile, self.tiling) for side in image.shape[2:])
        survey = Survey(image, tiling, window - 2 * round_up(_HALO_OF_STAGE, 8), check)
        survey.gather(self._pooled, self.encode2, self.encode3)
        pooled = survey.mapped(self._pooled)
        facts = Facts(pooled.new_zeros(()).expand(image.shape), {}, _PLANES)
        x = self.level4(pooled, facts)
        survey.context |= facts.noted
        for level, blend in ((3, self.level3), (2, self.level2), (1, self.level1)):
            stage = partial(self._blended_tile, level, x)
            survey.gather(stage, blend)
            if level > 1:
                x = survey.mapped(stage)
        return survey.context | self._tone(image)

    def located(self, image: Windows) -> Windows:
        return Located(image)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        """With an empty context the tile counts as a whole picture: what the authors' code does, and training needs."""
        return self._run(tile, context, 0)

    def whole(self, image: Tensor, reduced: Callable[[], AbstractContextManager[None]] = nullcontext) -> Tensor:
        with reduced():
            return self._run(image, {}, 0).to(image.dtype)

    def at_level(self, planes: Tensor, level: int) -> Tensor:
        """The picture that a level from 0 to 4 gives, for training from coarse to fine: (N, 3, 2h, 2w) / 2^level."""
        return self._run(planes, {}, level)

    def _run(self, tile: Tensor, context: Context, wanted: int) -> Tensor:
        facts = Facts(tile, context, _PLANES)
        planes = tile[:, :_PLANES]
        if wanted:
            coarse: Tensor = self.out[wanted]([self._features(planes, facts, wanted)], facts)
            return torch.sigmoid(coarse)
        picture = self._finest(planes, facts)
        known = context or self._tone(planes)
        return torch.sigmoid(_tone.toned(picture, facts.seen(known["tone"], _CELL)) if "tone" in known else picture)

    def _tone(self, image: Windows) -> dict[str, Tensor]:
        """What tiles of a large picture take their tone from: its picture as a view, before the sigmoid."""
        small = _tone.view(image, self.view) if self.view else None
        if small is None:
            return {}
        picture = self._finest(small, Facts(small, {}, _PLANES))
        return {"tone": _tone.cells(picture, 2 * image.shape[2], 2 * image.shape[3])}

    def _finest(self, planes: Tensor, facts: Facts) -> Tensor:
        """The picture of level 0, before its sigmoid."""
        x = self._features(planes, facts, 1)
        features = self.up0([facts.doubled(x)], facts)
        picture: Tensor = self.out[0]([features], facts)
        if self.skip is None or self.trust is None:
            return picture
        detail: Tensor = self.skip(F.pad(encode(planes), (1, 1, 1, 1), mode="reflect"))
        trusted = torch.sigmoid(self.trust([features], facts)) * detail
        return picture + facts.doubled(self.out[1]([x], facts)) + trusted

    def _features(self, planes: Tensor, facts: Facts, wanted: int) -> Tensor:
        """The features of a level from 4 to 1, and so of all coarser ones before."""
        encoded = list(self._encoded(planes, facts))
        x: Tensor = self.level4(F.max_pool2d(encoded[-1], 2), facts)
        for level in range(3, wanted - 1, -1):
            x = self._blended(level, encoded.pop(), x, facts)
        return x

    def _encoded(self, planes: Tensor, facts: Facts) -> Iterator[Tensor]:
        """What the levels 1, 2 and 3 see of the input."""
        features = self.encode1([encode(planes) if self.coded else planes], facts)
        yield features
        for coarser in (self.encode2, self.encode3):
            features = coarser([F.max_pool2d(features, 2)], facts)
            yield features

    def _encoded_at(self, level: int, planes: Tensor, facts: Facts) -> Tensor:
        return next(islice(self._encoded(planes, facts), level - 1, None))

    def _blended(self, level: int, encoded: Tensor, coarser: Tensor, facts: Facts) -> Tensor:
        """The features of a level from 3 to 1 from those of the next coarser one and what it sees of the input."""
        blends, ups = (self.level1, self.level2, self.level3), (self.up1, self.up2, self.up3)
        x: Tensor = blends[level - 1]([encoded, ups[level - 1]([facts.doubled(coarser)], facts)], facts)
        return x

    def _pooled(self, planes: Tensor, facts: Facts) -> Tensor:
        """What level 4 sees of the input."""
        return F.max_pool2d(self._encoded_at(3, planes, facts), 2)

    def _blended_tile(self, level: int, coarser: Tensor, planes: Tensor, facts: TileFacts) -> Tensor:
        """The features of a tile at a level, given those of the whole picture at the next coarser one."""
        encoded = self._encoded_at(level, planes, facts)
        return self._blended(level, encoded, facts.seen(coarser, 2**level), facts)


class _Conv(nn.Module):
    """Convolution of the joined parts with reflected borders, instance norm if wanted, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, norm: bool = False, active: bool = True) -> None:
        super().__init__()
        self.conv = JoinedConv2d(inputs, outputs, size, padding=size // 2, padding_mode="reflect")
        self.norm = _InstanceNorm(outputs) if norm else None
        self.active = active

    def forward(self, parts: Iterable[Tensor], facts: Facts) -> Tensor:
        slope = 0.2 if self.active else None
        if self.norm is None:
            x: Tensor = self.conv(parts, slope)
            return x
        x = self.norm(self.conv(parts), facts)
        return x if slope is None else F.leaky_relu_(x, slope)


class _Pair(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        self.first = _Conv(inputs, outputs, norm=norm)
        self.second = _Conv(outputs, outputs, norm=norm)

    def forward(self, parts: Iterable[Tensor], facts: Facts) -> Tensor:
        x: Tensor = self.second([self.first(parts, facts)], facts)
        return x


class _Coarsest(nn.Module):
    """Level 4: four pairs of convolutions with channel attention (ECA) after every second one, then CBAM."""

    def __init__(self, inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(_Pair(inputs if index == 0 else width, width) for index in range(4))
        self.eca = nn.ModuleList(_Eca(width) for _ in range(2))
        self.cbam = _Cbam(width, hidden)

    def forward(self, x: Tensor, facts: Facts) -> Tensor:
        for index, pair in enumerate(self.pairs):
            x = pair([x], facts)
            if index % 2 == 1:
                x = self.eca[index // 2](x, facts)
        attended: Tensor = self.cbam(x, facts)
        return attended


class _Coarse(nn.Module):
    """Level 3: a pair of convolutions, ECA, CBAM."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.pair = _Pair(2 * width, width)
        self.eca = _Eca(width)
        self.cbam = _Cbam(width, hidden)

    def forward(self, parts: Iterable[Tensor], facts: Facts) -> Tensor:
        x: Tensor = self.cbam(self.eca(self.pair(parts, facts), facts), facts)
        return x


class _Fine(nn.Module):
    """Levels 2 and 1: a pair of convolutions, then kernels of four sizes side by side, then what merges them."""

    def __init__(self, width: int, branch: int, merge: nn.Module) -> None:
        super().__init__()
        self.pair = _Pair(2 * width, width)
        self.branches = nn.ModuleList(_Branch(width, branch, size) for size in _KERNELS)
        self.merge = merge

    def forward(self, parts: Iterable[Tensor], facts: Facts) -> Tensor:
        x = self.pair(parts, facts)
        merged: Tensor = self.merge(facts.each(partial(branch, x, facts) for branch in self.branches), facts)
        return merged


class _Branch(nn.Module):
    """A convolution, illumination estimation (IEM), and SimAM attention without weights (Yang et al., ICML 2021)."""

    def __init__(self, inputs: int, width: int, size: int) -> None:
        super().__init__()
        self.enter = _Conv(inputs, width, size)
        self.light = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=False)
        self.level = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU()),
            *(nn.Linear(width, width // 2), nn.ReLU()),
            *(nn.Linear(width // 2, width), nn.Sigmoid()),
        )
        self.mean = Statistic()
        self.moments = Statistic("variance")

    def forward(self, x: Tensor, facts: Facts) -> Tensor:
        x = self.enter([x], facts)
        level = self.level(self.mean(x, facts)[:, 0])[:, :, None, None]
        x = by_bands(partial(_lit, level=level), x, convolved(self.light, x))
        mean, variance = self.moments(x, facts).unbind(1)
        variance = variance * (1 + 1 / (facts.count(x) - 1))  # of a sample: one degree of freedom less
        mean, variance = (row[:, :, None, None].to(x.dtype) for row in (mean, variance))
        return by_bands(partial(_attended, mean=mean, variance=variance), x)


def _lit(x: Tensor, light: Tensor, level: Tensor) -> Tensor:
    return x * torch.sigmoid(light) * level


def _attended(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return x * torch.sigmoid((x - mean) ** 2 / (4 * (variance + 1e-4)) + 0.5)


class _InstanceNorm(nn.Module):
    """Ulyanov et al., 2016, with weight and bias, by the statistics of the whole picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.moments = Statistic("variance")

    def forward(self, x: Tensor, facts: Facts) -> Tensor:
        mean, variance = self.moments(x, facts).unbind(1)
        scale = self.weight / torch.sqrt(variance + 1e-5)
        shift = self.bias - mean * scale
        return by_bands(partial(_scaled, scale=scale[:, :, None, None], shift=shift[:, :, None, None]), x)


def _scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return (x * scale).add_(shift).to(x.dtype)


class _Eca(nn.Module):
    """Efficient channel attention (Wang et al., CVPR 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        size = int((math.log2(width) + 1) / 2) // 2 * 2 + 1
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)
        self.means = Statistic()

    def forward(self, x: Tensor, facts: Facts) -> Tensor:
        weights = torch.sigmoid(self.conv(self.means(x, facts)))[:, 0]
        return x * weights[:, :, None, None]


class _Cbam(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018): channels, then places, added to the input.

    As published for this network, largest and mean value have a perceptron each.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.largest = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.mean = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.places = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.extent = Statistic("largest")

    def forward(self, x: Tensor, facts: Facts) -> Tensor:
        mean, largest = self.extent(x, facts).unbind(1)
        channels = torch.sigmoid(self.largest(largest) + self.mean(mean))
        y = x * channels[:, :, None, None]
        seen = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.places(seen)) * y + x


def _published_modules() -> dict[str, str]:
    modules = {
        **_pair("encode1", "conv_l1_d1"),
        **_pair("encode2", "conv_l2_d1"),
        **_pair("encode3", "conv_l3_d1"),
        "level4.eca.0.conv": "out_eca1_l4.conv",
        "level4.eca.1.conv": "out_eca2_l4.conv",
        **_pair("level3.pair", "conv_l3_d3"),
        "level3.eca.conv": "out_eca_l3.conv",
        **_pair("level2.pair", "conv_l2_d2"),
        **_pair("level2.merge", "conv_l2_d3"),
        **_pair("level1.pair", "conv_l1_d2"),
        "level1.merge.conv": "conv_l1_d3.conv2d",
        "out.0.conv": "conv_l0_d1.conv2d",
    }
    for index in range(4):
        modules |= _pair(f"level4.pairs.{index}", f"conv_l4_d{index + 1}")
        modules[f"up{index}.conv"] = f"conv_t{index}b.conv2d"
        modules[f"out.{index + 1}.conv"] = f"conv_l{index + 1}_out.conv2d"
    for level in (4, 3):
        ours, theirs = f"level{level}.cbam", f"out_cbam_l{level}"
        modules[f"{ours}.places"] = f"{theirs}.sam.conv"
        for layer in (0, 2):
            modules[f"{ours}.largest.{layer}"] = f"{theirs}.cam.linear_max.{layer}"
            modules[f"{ours}.mean.{layer}"] = f"{theirs}.cam.linear_avg.{layer}"
    for level, index in product((2, 1), range(len(_KERNELS))):
        ours, theirs = f"level{level}.branches.{index}", f"IEM_l{level}_{index + 1}"
        modules[f"{ours}.enter.conv"] = f"conv_l{level}_IEM{index + 1}.conv2d"
        modules[f"{ours}.light"] = f"{theirs}.conv1"
        modules |= {f"{ours}.level.{2 * layer}": f"{theirs}.fc{layer + 1}" for layer in range(3)}
    return modules


def _pair(ours: str, theirs: str) -> dict[str, str]:
    convs = {f"{ours}.{a}.conv": f"{theirs}.conv_3{b}.conv2d" for a, b in (("first", "a"), ("second", "b"))}
    norms = {f"{ours}.{a}.norm": f"{theirs}.conv_3{b}.instance" for a, b in (("first", "a"), ("second", "b"))}
    return convs | norms


def import_torch(paths: Sequence[Path], build: Mapping[str, Any]) -> StateDict:
    """A .pth file of the authors' code, as they save it from nn.DataParallel."""
    with torch.device("meta"):
        expected = HdrIsp(**build).state_dict()
    return import_arrays(paths, _published_modules(), expected, "hdrisp")


SPEC = NetSpec(
    paper="Erbas, RAW to Tone-mapped HDR Camera ISP; after PyNET (Ignatov et al., CVPRW 2020)",
    reference="https://github.com/korayerbas/raw_to_tonemappedHDR @ dd2b054c",
    task="develop",
    gives="srgb",
    build=HdrIsp,
    importers={"torch-state-dict": import_torch},
    deviations=(
        "statistics of a picture larger than one tile are measured on the whole picture and shared by its tiles",
        "with coded, the network sees asinh-coded planes",
        "with view, large pictures have the tone that they have at the size of the views that were trained on",
        "with skip, the last picture is that of level 1 with corrections and detail from a learned linear demosaic",
    ),
    tiny={"width": 4},
)
