"""FHDR: feedback network for HDR from one picture.

Features of the picture are refined by a feedback block `iterations` times; the block sees what it gave the time before.

        picture - extract1 - extract2 - feedback - (+) - reconstruct1 - reconstruct2 - tanh
                     |                  |  ^  |     |
                     |                  +--+--+     |      three dilated dense blocks, each with
                     +------------------------------+      a memory of its own
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hdrcli.errors import WeightsError
from hdrcli.nets._fused import active
from hdrcli.nets._joined import JoinedConv2d
from hdrcli.nets._torch_checkpoint import import_arrays
from hdrcli.nets.hdrcnn import inverse_camera_curve
from hdrcli.network import Context, NetSpec, Network, StateDict
from hdrcli.tiling import Tiling

_BLOCKS = 3
_LAYERS = 4
_DILATION = 2
_DARKEST = 2e-5  # of the range of 2, below which no light is carried past the network


class FHDR(Network):
    """(N, 3, H, W) sRGB-encoded RGB in [0, 1] to linear RGB in [0, peak] on the scale of the training data.

    iterations: how often the feedback block runs; weights are trained for one count. width: channels, 64 in the paper.
    peak: the light that the end of the network's range stands for; published weights are for 1. skip: the network
    corrects the picture's light by a mean camera curve instead of giving light anew; published weights do not.
    """

    def __init__(self, iterations: int = 1, width: int = 64, peak: float = 1.0, skip: bool = False) -> None:
        super().__init__()
        if not 0 < peak < float("inf"):
            raise WeightsError(f"the peak of fhdr cannot be {peak}", hint="give the one it was trained for")
        self.peak = peak
        if iterations < 1:
            raise WeightsError(f"fhdr cannot run {iterations} iterations", hint="give the count it was trained for")
        self.iterations = iterations
        self.skip = skip
        self.extract1 = nn.Conv2d(3, width, 3, padding=1, padding_mode="reflect")
        self.extract2 = nn.Conv2d(width, width, 3, padding=1)
        self.feedback = _Feedback(width)
        self.reconstruct1 = nn.Conv2d(width, width, 3, padding=1)
        self.reconstruct2 = nn.Conv2d(width, 3, 3, padding=1, padding_mode="reflect")
        reach_of_feedback = _BLOCKS * _LAYERS * _DILATION + 1
        self.tiling = Tiling(halo=iterations * reach_of_feedback + 4, tile=384, minimum=2)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        for refined in self._refine(tile):
            last = refined
        return (self._reconstruct(last, tile) + 1) * (self.peak / 2)

    def iterates(self, image: Tensor) -> list[Tensor]:
        """What each iteration gives, in the published range: a list of (N, 3, H, W) RGB in [-1, 1], for training."""
        return [self._reconstruct(refined, image) for refined in self._refine(image)]

    def _refine(self, image: Tensor) -> Iterator[Tensor]:
        shallow = active(self.extract1, 2 * image - 1)
        features = active(self.extract2, shallow)
        memory: list[Tensor] | None = None
        for _ in range(self.iterations):
            refined, memory = self.feedback(features, memory)
            yield refined + shallow

    def _reconstruct(self, refined: Tensor, image: Tensor) -> Tensor:
        picture = self.reconstruct2(active(self.reconstruct1, refined))
        if self.skip:
            light = inverse_camera_curve(image) * (2 / self.peak) - 1
            picture = picture + torch.atanh(light.clamp(min=_DARKEST - 1, max=1 - _DARKEST))
        return torch.tanh(picture)


class _Feedback(nn.Module):
    """Three dense blocks in a row. It and each block remember what they gave; at first each takes its own input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.merge = JoinedConv2d(2 * width, width, 1)
        self.blocks = nn.ModuleList(_DenseBlock(width) for _ in range(_BLOCKS))
        self.fuse = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor, memory: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """What it gives, and that together with what its blocks gave as the memory of the next iteration.

        No gradient flows through the memory, as in the authors' code.
        """
        own, *others = memory or [features]
        x = self.merge([features, own])
        given = []
        for index, block in enumerate(self.blocks):
            x = block(x, others[index] if others else x)
            given.append(x.detach())
        out = active(self.fuse, x)
        return out, [out.detach(), *given]


class _DenseBlock(nn.Module):
    """Four dilated convolutions, each of which sees the merged input and what all before it gave."""

    def __init__(self, width: int) -> None:
        super().__init__()
        growth = width // 2
        self.merge = JoinedConv2d(2 * width, width, 1)
        self.dense = nn.ModuleList(
            JoinedConv2d(width + layer * growth, growth, 3, padding=_DILATION, dilation=_DILATION, bias=False)
            for layer in range(_LAYERS)
        )
        self.fuse = JoinedConv2d(width + _LAYERS * growth, width, 1, bias=False)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        parts = [self.merge([x, memory])]
        for layer in self.dense:
            parts.append(layer(parts, 0.0))
        fused: Tensor = self.fuse(parts)
        return fused


def _published_modules() -> dict[str, str]:
    modules = {
        "extract1": "feb1",
        "extract2": "feb2",
        "feedback.merge": "feedback_block.compress_in",
        "feedback.fuse": "feedback_block.GFF_3x3",
        "reconstruct1": "hrb1",
        "reconstruct2": "hrb2",
    }
    for block in range(_BLOCKS):
        ours, theirs = f"feedback.blocks.{block}", f"feedback_block.DRDB{block + 1}"
        modules |= {f"{ours}.merge": f"{theirs}.compress", f"{ours}.fuse": f"{theirs}.conv_1x1"}
        modules |= {f"{ours}.dense.{layer}": f"{theirs}.dense_layers.{layer}.conv" for layer in range(_LAYERS)}
    return modules


def import_torch(paths: Sequence[Path], build: Mapping[str, Any]) -> StateDict:
    """A checkpoint of the authors' code. Those give BGR; the last convolution is turned round, so ours give RGB.

    The number of iterations is not in the file: `build` has to say it.
    """
    with torch.device("meta"):
        expected = FHDR(**build).state_dict()
    state = import_arrays(paths, _published_modules(), expected, "fhdr")
    return state | {name: state[name].flip(0) for name in ("reconstruct2.weight", "reconstruct2.bias")}


SPEC = NetSpec(
    paper="Khan, Khanna, Raman, FHDR: HDR Image Reconstruction from a Single LDR Image using Feedback Network, "
    "IEEE GlobalSIP 2019",
    reference="https://github.com/mukulkhanna/FHDR @ 1a6cfb68",
    task="expand",
    gives="linear",
    build=FHDR,
    importers={"torch-state-dict": import_torch},
    deviations=(
        "the feedback starts afresh for every picture; the authors' code carries it over from the picture before",
        "RGB comes out; the authors' weights give BGR and are turned round on import",
        "the output is not stretched to its own minimum and maximum",
        "with the option skip, light by the mean camera curve of HDRCNN is added before the tanh",
    ),
    tiny={"width": 8},
)
