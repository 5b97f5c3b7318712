"""What the tasks share: finding the model, and writing down how a picture was made."""

import math
from typing import NamedTuple

from hdrcli import __version__, cards, zoo
from hdrcli.cards import Task
from hdrcli.errors import UsageError
from hdrcli.image import Image


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


def provenance(model: zoo.Model, **settings: float | str) -> dict[str, str]:
    """What is written into an output about its making: model, weights, version and settings."""
    facts = {"model": model.card.name, "sha256": model.card.sha256, "version": __version__, **settings}
    return {f"hdr:{key}": f"{value:g}" if isinstance(value, float) else str(value) for key, value in facts.items()}
