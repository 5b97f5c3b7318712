"""Frames of one clip: what networks find out about whole pictures is found once, so that the clip does not flicker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hdrcli import zoo
from hdrcli.batch import Check, go_on
from hdrcli.image import Planes
from hdrcli.network import Context, Network, Wrapped
from hdrcli.tiling import Padded, Windows


class Steady(Wrapped):
    """A network for which every picture has the same context."""

    def __init__(self, network: Network, context: Context) -> None:
        super().__init__(network)
        self.context = context

    def prepare(self, image: Windows) -> Context:
        device = image[:, :, :1, :1].device
        return {name: value.to(device) for name, value in self.context.items()}

    def survey(self, image: Windows, tile: int, check: Check = go_on) -> Context:
        return self.prepare(image)


@dataclass(frozen=True)
class SteadyModel(zoo.Model):
    """A model for the frames of one clip, which travels with what it knows of the clip."""

    network: Steady

    def __reduce__(self) -> tuple[Any, ...]:
        return steadied, (zoo.Model(self.card, self.spec, self.network.network), self.network.context)


def steadied(model: zoo.Model, context: Context) -> SteadyModel:
    """The model with that context for every picture."""
    return SteadyModel(model.card, model.spec, Steady(model.network, context))


@torch.inference_mode()
def steady(model: zoo.Model, frames: Sequence[Planes]) -> zoo.Model:
    """The model with one context for all frames of a clip: the mean of those of `frames`, (3, H, W) code values each.

    The mean of rising response curves is one, too.
    """
    network, here = model.network.eval(), torch.device("cpu")
    found = [network.prepare(Padded(planes, network.tiling, here)) for planes in frames]
    mean = {name: torch.stack([context[name] for context in found]).mean(dim=0) for name in found[0]}
    return steadied(model, mean) if mean else model
