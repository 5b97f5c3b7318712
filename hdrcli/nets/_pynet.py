"""The blocks of hdrisp, after PyNET (Ignatov et al., CVPRW 2020): convolutions, normalisation, attention.

Each takes, beside its input, the `Facts` that hold for the whole picture of which the input may be a tile.
"""

import math
from collections.abc import Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._fused import convolved
from hdrcli.nets._joined import JoinedConv2d
from hdrcli.nets._quick import by_bands
from hdrcli.nets._whole import Facts, Statistic

KERNELS = (3, 5, 7, 9)  # of the levels that are made by several side by side


class Conv(nn.Module):
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


class Pair(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, norm=norm)
        self.second = Conv(outputs, outputs, norm=norm)

    def forward(self, parts: Iterable[Tensor], facts: Facts) -> Tensor:
        x: Tensor = self.second([self.first(parts, facts)], facts)
        return x


class Coarsest(nn.Module):
    """Level 4: four pairs of convolutions with channel attention (ECA) after every second one, then CBAM."""

    def __init__(self, inputs: int, width: int, hidden: int) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(Pair(inputs if index == 0 else width, width) for index in range(4))
        self.eca = nn.ModuleList(_Eca(width) for _ in range(2))
        self.cbam = _Cbam(width, hidden)

    def forward(self, x: Tensor, facts: Facts) -> Tensor:
        for index, pair in enumerate(self.pairs):
            x = pair([x], facts)
            if index % 2 == 1:
                x = self.eca[index // 2](x, facts)
        attended: Tensor = self.cbam(x, facts)
        return attended


class Coarse(nn.Module):
    """Level 3: a pair of convolutions, ECA, CBAM."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.pair = Pair(2 * width, width)
        self.eca = _Eca(width)
        self.cbam = _Cbam(width, hidden)

    def forward(self, parts: Iterable[Tensor], facts: Facts) -> Tensor:
        x: Tensor = self.cbam(self.eca(self.pair(parts, facts), facts), facts)
        return x


class Fine(nn.Module):
    """Levels 2 and 1: a pair of convolutions, then kernels of four sizes side by side, then what merges them."""

    def __init__(self, width: int, branch: int, merge: nn.Module) -> None:
        super().__init__()
        self.pair = Pair(2 * width, width)
        self.branches = nn.ModuleList(_Branch(width, branch, size) for size in KERNELS)
        self.merge = merge

    def forward(self, parts: Iterable[Tensor], facts: Facts) -> Tensor:
        x = self.pair(parts, facts)
        merged: Tensor = self.merge(facts.each(partial(branch, x, facts) for branch in self.branches), facts)
        return merged


class _Branch(nn.Module):
    """A convolution, illumination estimation (IEM), and SimAM attention without weights (Yang et al., ICML 2021)."""

    def __init__(self, inputs: int, width: int, size: int) -> None:
        super().__init__()
        self.enter = Conv(inputs, width, size)
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
