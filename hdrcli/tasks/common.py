"""What the tasks share: finding the model, and writing down how a picture was made."""

import math
from typing import NamedTuple

from hdrcli import __version__, cards, zoo
from hdrcli.batch import Check, go_on
from hdrcli.cards import Task
from hdrcli.errors import UsageError
from hdrcli.image import Image
from hdrcli.network import Context, Network, Wrapped
from hdrcli.tiling import Windows


class Denoising(Wrapped):
    """A network that finds `strength` times the noise that it measures in a picture, and treats it accordingly."""

    def __init__(self, network: Network, strength: float) -> None:
        super().__init__(network)
        self.strength = strength

    def prepare(self, image: Windows) -> Context:
        context = self.network.prepare(image)
        return {**context, "noise": context["noise"] * self.strength**2}  # of variances

    def survey(self, image: Windows, tile: int, check: Check = go_on) -> Context:
        return self.prepare(image)


class Made(NamedTuple):
    """A picture that a network made, how it was made, and the same picture in the other state.

    partner: for light, the finished picture it came from; for a finished picture, its light, where the model gives it.
    """

    image: Image
    device: str
    precision: str
    tiles: int
    partner: Image | None = None


def model_for(task: Task, model: str | zoo.Model | None) -> zoo.Model:
    """The model called `model`, or the default one of `task`, ready to run; UsageError if it is for another task."""
    if not isinstance(model, zoo.Model):
        card = cards.lookup(model or cards.default_model(task))
        require_task(card, task)
        return zoo.open_card(card)
    require_task(model.card, task)
    return model


def require_task(card: cards.Card, task: Task) -> None:
    """UsageError unless the card's model is for `task`."""
    if card.task != task:
        fitting = ", ".join(name for name, other in cards.cards().items() if other.task == task)
        raise UsageError(f"{card.name} is a model for {card.task}, not for {task}", hint=f"models: {fitting}")


def check_number(name: str, value: float, *, above: float = -math.inf) -> None:
    """UsageError unless a setting is finite and above a bound."""
    if not above < value < math.inf:
        bound = f"above {above:g}" if above > -math.inf else "a finite number"
        raise UsageError(f"{name} must be {bound}, not {value:g}")


def check_denoise(model: zoo.Model, denoise: float, most: float) -> None:
    """UsageError for a strength that cannot be, or that the model has not."""
    if not 0 <= denoise <= most:
        raise UsageError(f"--denoise {denoise} is not in 0 to {most:g}", hint="1 is as trained, 0 leaves the noise")
    if denoise != 1 and not model.spec.measures_noise:
        raise UsageError(f"{model.card.name} does not measure noise", hint="leave --denoise out")


def denoising(network: Network, denoise: float) -> Network:
    """The network, finding `denoise` times the noise."""
    return network if denoise == 1 else Denoising(network, denoise)


def provenance(model: zoo.Model, **settings: float | str) -> dict[str, str]:
    """What is written into an output about its making: model, weights, version and settings."""
    facts = {"model": model.card.name, "sha256": model.card.sha256, "version": __version__, **settings}
    return {f"hdr:{key}": f"{value:g}" if isinstance(value, float) else str(value) for key, value in facts.items()}
