"""Small models for tests of what lies around the networks: random weights in files, and formulas in memory."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hdrcli import nets, zoo
from hdrcli.cards import Card
from hdrcli.lanes import Streams
from hdrcli.network import Context, NetSpec, Network
from hdrcli.tiling import Kept, Tiling, run_tiled

CPU = Streams(torch.device("cpu"))


def save_standin(name: str, folder: Path) -> None:
    """Saves the tiny build of the network `name` as the model `name`."""
    spec = nets.spec(name)
    torch.manual_seed(0)
    network = spec.build(**spec.tiny).eval()
    build = {key: list(value) if isinstance(value, tuple) else value for key, value in spec.tiny.items()}
    zoo.save(
        name=name,
        net=name,
        state=dict(network.state_dict()),
        build=build,
        licence="MIT",
        origin="random numbers",
        training={},
        scores={},
        folder=folder,
        sample=False,
    )


def tiled(network: Network, image: Tensor, context: Context, **options: Any) -> Tensor:
    """The middle stage, tile by tile."""
    scale = network.tiling.scale
    output = torch.full((1, 3, image.shape[2] * scale, image.shape[3] * scale), torch.nan, dtype=image.dtype)

    def part(tiles: Tensor, kept: Kept) -> Tensor:
        return network.part(tiles, context, kept)

    for (rows, columns), values in run_tiled(network.located(image), part, network.tiling, lanes=CPU, **options):
        output[0, :, rows, columns] = values
    return output


class Square(Network):
    """Gives the square of code values: a known curve in place of a learned one."""

    def __init__(self) -> None:
        super().__init__()
        self.tiling = Tiling(multiple_of=8)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        return tile**2


class Bilinear(Network):
    """Gives the red, mean green and blue of each packed 2x2 block to all four of its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.tiling = Tiling(multiple_of=2, scale=2)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        blue, gr, red, gb = tile.split(1, dim=1)
        rgb = torch.cat([red, (gr + gb) / 2, blue], dim=1)
        return rgb.repeat_interleave(2, 2).repeat_interleave(2, 3)


def known_model(task: Literal["expand", "develop"], gives: Literal["linear", "srgb"] = "linear") -> zoo.Model:
    """A model whose numbers are known: Square for expand, Bilinear for develop."""
    build = Square if task == "expand" else Bilinear
    card = Card(
        name="known",
        net="known",
        task=task,
        file="known.safetensors",
        sha256="0" * 64,
        build={},
        licence="MIT",
        origin="a formula",
        folder=Path(),
    )
    return zoo.Model(card, NetSpec(paper="", task=task, gives=gives, build=build), build())


def numbers(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, which is closed again."""
    with np.load(path) as file:
        return dict(file)
