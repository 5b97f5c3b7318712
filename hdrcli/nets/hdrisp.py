"""raw_to_tonemappedHDR: from packed RAW to a finished picture, through five levels of resolution.

        planes - encode1 - - - - - - - - - - - - - - - - - - level 1 - level 0     packed size, twice that
                    \\- encode2 - - - - - - - - - - level 2 -/                      1/2
                          \\- encode3 - - - level 3 -/                              1/4
                                \\- level 4 -/                                      1/8

Normalisation and attention scale features by numbers of the whole picture: means, variances, maxima. `prepare` measures
them once, and all tiles use them instead of their own. Doubling the resolution keeps corners on corners, so it depends
on where in the picture a pixel lies: tiles carry their place with them, as `located` gives it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.errors import WrongStateError
from hdrcli.nets._joined import JoinedConv2d
from hdrcli.nets._torch_checkpoint import import_arrays
from hdrcli.network import Context, NetSpec, Network, StateDict
from hdrcli.tiling import Tiling

_PLANES = 4
_KERNELS = (3, 5, 7, 9)


class HdrIsp(Network):
    """(N, 4, h, w) planes B, Gr, R, Gb to (N, 3, 2h, 2w) sRGB-encoded RGB in (0, 1); h and w are multiples of 8.

    width: channels at packed size, 32 in the paper; twice as many at each level below. skip: adds a learned linear
    demosaic of the asinh-coded planes before the last sigmoid (a deviation; published weights have none).
    """

    planes = _PLANES

    def __init__(self, width: int = 32, skip: bool = False) -> None:
        super().__init__()
        w1, w2, w3, w4 = (width << level for level in range(4))
        self.tiling = Tiling(multiple_of=8, halo=171, scale=2, tile=1024, minimum=16)
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
        self.skip = nn.ConvTranspose2d(_PLANES, 3, 6, stride=2, padding=4, bias=False) if skip else None

    def prepare(self, image: Tensor) -> Context:
        facts = _Facts(image, {})
        for level, _ in self._levels(image, facts):
            if level == 1:
                break
        return facts.noted

    def located(self, image: Tensor) -> Tensor:
        """Adds two planes: row and column of each pixel in parts of the picture's height and width."""
        count, _, height, width = image.shape
        rows = _places(height, image)[:, None].expand(count, 1, height, width)
        columns = _places(width, image).expand(count, 1, height, width)
        return torch.cat([image, rows, columns], dim=1)

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
        facts = _Facts(tile, context)
        planes = tile[:, :_PLANES]
        features = next(features for level, features in self._levels(planes, facts) if level == wanted)
        picture: Tensor = self.out[wanted]([features], facts)
        if wanted == 0 and self.skip is not None:
            coded = torch.asinh(20 * planes) / 4
            picture = picture + self.skip(F.pad(coded, (1, 1, 1, 1), mode="reflect"))
        return torch.sigmoid(picture)

    def _levels(self, planes: Tensor, facts: "_Facts") -> Iterator[tuple[int, Tensor]]:
        """The levels 4 to 0 and their features, each computed when it is asked for."""
        x, encoded = planes, []
        for encode in (self.encode1, self.encode2, self.encode3):
            encoded.append(encode([x], facts))
            x = F.max_pool2d(encoded[-1], 2)
        x = self.level4(x, facts)
        yield 4, x
        for level, blend, up in ((3, self.level3, self.up3), (2, self.level2, self.up2), (1, self.level1, self.up1)):
            x = blend([encoded.pop(), up([facts.doubled(x)], facts)], facts)
            yield level, x
        yield 0, self.up0([facts.doubled(x)], facts)


class _Facts:
    """What holds for a whole picture: taken from a context or, where that is empty, measured on the tile itself.

    noted: the context of later tiles; the statistics are numbered in the order in which the network asks for them.
    """

    def __init__(self, tile: Tensor, context: Context) -> None:
        self._known = context
        self._sides = torch.tensor([tile.shape[2:]]) if not context else context["sides"]
        self.noted = {"sides": self._sides}
        if tile.shape[1] > _PLANES:
            self._rows, self._columns = tile[:, _PLANES, :, 0], tile[:, _PLANES + 1, 0, :]
        elif self._sides.tolist() == [list(tile.shape[2:])]:
            self._rows, self._columns = (_places(side, tile)[None] for side in tile.shape[2:])
        else:
            raise WrongStateError(
                "hdrisp was given a tile that does not say where in the picture it lies",
                hint="cut tiles from network.located(picture)",
            )

    def statistic(self, measure: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`measure` of the whole picture's x, at least in single precision; it gives (N, ...)."""
        name = f"statistic {len(self.noted):02d}"
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        self.noted[name] = self._known[name] if self._known else measure(precise)
        return self.noted[name]

    def doubled(self, x: Tensor) -> Tensor:
        """Bilinear, twice the size, corners of the whole picture on corners (`align_corners=True`)."""
        height, width = self._sides[0].tolist()
        return _doubled(_doubled(x, 2, self._rows, height), 3, self._columns, width)


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


class _Conv(nn.Module):
    """Convolution of the joined parts with reflected borders, instance norm if wanted, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, norm: bool = False, active: bool = True) -> None:
        super().__init__()
        self.conv = JoinedConv2d(inputs, outputs, size, padding=size // 2, padding_mode="reflect")
        self.norm = _InstanceNorm(outputs) if norm else None
        self.active = active

    def forward(self, parts: Iterable[Tensor], facts: _Facts) -> Tensor:
        x: Tensor = self.conv(parts)
        if self.norm is not None:
            x = self.norm(x, facts)
        return F.leaky_relu_(x, 0.2) if self.active else x


class _Pair(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        self.first = _Conv(inputs, outputs, norm=norm)
        self.second = _Conv(outputs, outputs, norm=norm)

    def forward(self, parts: Iterable[Tensor], facts: _Facts) -> Tensor:
        x: Tensor = self.second([self.first(parts, facts)], facts)
        return x


class _Coarsest(nn.Module):
    """Level 4: four pairs of convolutions with channel attention (ECA) after every second one, then CBAM."""

    def __init__(self, inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(_Pair(inputs if index == 0 else width, width) for index in range(4))
        self.eca = nn.ModuleList(_Eca(width) for _ in range(2))
        self.cbam = _Cbam(width, hidden)

    def forward(self, x: Tensor, facts: _Facts) -> Tensor:
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

    def forward(self, parts: Iterable[Tensor], facts: _Facts) -> Tensor:
        x: Tensor = self.cbam(self.eca(self.pair(parts, facts), facts), facts)
        return x


class _Fine(nn.Module):
    """Levels 2 and 1: a pair of convolutions, then kernels of four sizes side by side, then what merges them."""

    def __init__(self, width: int, branch: int, merge: nn.Module) -> None:
        super().__init__()
        self.pair = _Pair(2 * width, width)
        self.branches = nn.ModuleList(_Branch(width, branch, size) for size in _KERNELS)
        self.merge = merge

    def forward(self, parts: Iterable[Tensor], facts: _Facts) -> Tensor:
        x = self.pair(parts, facts)
        merged: Tensor = self.merge((branch(x, facts) for branch in self.branches), facts)
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

    def forward(self, x: Tensor, facts: _Facts) -> Tensor:
        x = self.enter([x], facts)
        level = self.level(facts.statistic(_mean, x))[:, :, None, None]
        x = x * torch.sigmoid(self.light(x)) * level
        mean, variance = _columns(facts.statistic(_sample_moments, x), x)
        return x * torch.sigmoid((x - mean) ** 2 / (4 * (variance + 1e-4)) + 0.5)


class _InstanceNorm(nn.Module):
    """Ulyanov et al., 2016, with weight and bias, by the statistics of the whole picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, facts: _Facts) -> Tensor:
        mean, variance = facts.statistic(_moments, x).unbind(1)
        scale = self.weight / torch.sqrt(variance + 1e-5)
        shift = self.bias - mean * scale
        return (x * scale[:, :, None, None]).add_(shift[:, :, None, None]).to(x.dtype)


class _Eca(nn.Module):
    """Efficient channel attention (Wang et al., CVPR 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        size = int((math.log2(width) + 1) / 2) // 2 * 2 + 1
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor, facts: _Facts) -> Tensor:
        weights = torch.sigmoid(self.conv(facts.statistic(_mean, x)[:, None, :]))[:, 0]
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

    def forward(self, x: Tensor, facts: _Facts) -> Tensor:
        largest, mean = facts.statistic(_extent, x).unbind(1)
        channels = torch.sigmoid(self.largest(largest) + self.mean(mean))
        y = x * channels[:, :, None, None]
        seen = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.places(seen)) * y + x


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def _moments(x: Tensor) -> Tensor:
    """Mean and variance; in two passes, which is as accurate as torch.var_mean and faster."""
    mean = x.mean(dim=(2, 3))
    variance = (x - mean[:, :, None, None]).square().mean(dim=(2, 3))
    return torch.stack([mean, variance], dim=1)


def _sample_moments(x: Tensor) -> Tensor:
    """Mean and variance, the latter with one degree of freedom less."""
    count = x.shape[2] * x.shape[3]
    return _moments(x) * x.new_tensor([[1.0], [count / (count - 1)]])


def _extent(x: Tensor) -> Tensor:
    return torch.stack([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1)


def _columns(statistic: Tensor, like: Tensor) -> tuple[Tensor, ...]:
    """Unpacks (N, K, C) to K maps (N, C, 1, 1) in the precision of the features they are for."""
    return tuple(part[:, :, None, None].to(like.dtype) for part in statistic.unbind(1))


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
        "with skip, a learned demosaic of the asinh-coded planes is added before the last sigmoid",
    ),
    tiny={"width": 4},
)
