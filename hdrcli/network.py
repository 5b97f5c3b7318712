"""What every network is: three stages, of which only the middle one is ever tiled; and the facts that describe it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from hdrcli.batch import Check, go_on
from hdrcli.tiling import Kept, Tiling, Windows, kept_of

Context = Mapping[str, Tensor]
"""What `prepare` found out about one whole picture; every tensor has a batch axis of 1 and holds for all its tiles."""

StateDict = dict[str, Tensor]


class Network(nn.Module):
    """A network in three stages. Nothing is remembered between calls.

    A network of task "expand" takes (N, 3, H, W) sRGB-encoded RGB in [0, 1] and gives (N, 3, H, W) scene-linear BT.709
    RGB, where 1.0 is the level at which the camera clips. One of task "develop" takes (N, 4, h, w) packed Bayer planes
    B, Gr, R, Gb (see `hdrcli.sensor`) and gives (N, 3, 2h, 2w), linear or sRGB-encoded as its spec says.
    """

    tiling: Tiling  # set in __init__: may depend on hyper-parameters
    planes = 3  # of the input
    surveyed = 0.0  # values for each pixel of the input that `survey` holds beside it

    def prepare(self, image: Windows) -> Context:
        """Looks at the whole (1, C, H, W) picture once, by its windows: response curve, statistics, noise level."""
        return {}

    def survey(self, image: Windows, tile: int, check: Check = go_on) -> Context:
        """What `prepare` finds, for a picture that it cannot look at by windows and that is too large to be one.

        tile: side of the tiles that `forward` would get, without their halo. check: called before each tile.
        """
        return self.prepare(image)

    def located(self, image: Windows) -> Windows:
        """What tiles are cut from: the picture, with planes added where the network must know a pixel's place."""
        return image

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        """Pure and local: tiles (N, C, h, w) of the picture that `context` was prepared from."""
        raise NotImplementedError

    def part(self, tile: Tensor, context: Context, kept: Kept) -> Tensor:
        """What `forward` gives of the part of a tile that is kept; networks that can leave out the rest do so."""
        return kept_of(self(tile, context), kept, self.tiling.scale)

    def finish(self, output: Tensor, context: Context) -> Tensor:
        """What becomes of the output of a tile, in single precision: of each pixel by itself."""
        return output

    @property
    def core(self) -> "Network":
        """The network whose speed and accuracy are those of this one."""
        return self

    def whole(self, image: Tensor, reduced: Callable[[], AbstractContextManager[None]] = nullcontext) -> Tensor:
        """All three stages on a picture in one piece, (1, C, H, W) of a size the network takes.

        reduced: what `forward` runs in, such as autocast to a lower precision.
        """
        context = self.prepare(image)
        with reduced():
            output = self(image, context)
        return self.finish(output.to(image.dtype), context)


class Wrapped(Network):
    """A network that is another one, but for what subclasses change."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.tiling = network, network.tiling
        self.planes, self.surveyed = network.planes, network.surveyed

    @property
    def core(self) -> Network:
        return self.network.core

    def prepare(self, image: Windows) -> Context:
        return self.network.prepare(image)

    def survey(self, image: Windows, tile: int, check: Check = go_on) -> Context:
        return self.network.survey(image, tile, check)

    def located(self, image: Windows) -> Windows:
        return self.network.located(image)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        values: Tensor = self.network(tile, context)
        return values

    def part(self, tile: Tensor, context: Context, kept: Kept) -> Tensor:
        return self.network.part(tile, context, kept)

    def finish(self, output: Tensor, context: Context) -> Tensor:
        return self.network.finish(output, context)


Importer = Callable[[Sequence[Path], Mapping[str, Any]], StateDict]
"""Reads published files, given the build arguments, and returns a state dict in this project's names."""


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """Facts of one network; each file in `nets/` exposes exactly one, as SPEC.

    paper: citation. reference: URL and commit the port was checked against ("" for our own).
    gives: what the output numbers mean: "linear" light or "srgb" code values.
    feeds: the sensor feeds (see `hdrcli.sensor`) that a network of task "develop" can make sense of.
    measures_noise: whether the context has the variances of "noise" that it allows for, or what they are multiplied by.
    build: makes the network from the keyword arguments in a card's [build] table.
    importers: published formats by name. deviations: where we knowingly differ, one line each.
    tiny: build arguments for tests: same topology, few channels.
    """

    paper: str
    task: Literal["expand", "develop"]
    gives: Literal["linear", "srgb"]
    build: Callable[..., Network]
    feeds: tuple[Literal["canonical", "native"], ...] = ("canonical", "native")
    measures_noise: bool = False
    reference: str = ""
    importers: Mapping[str, Importer] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    tiny: Mapping[str, Any] = field(default_factory=dict)
