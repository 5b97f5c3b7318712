"""Recipes: how a network is trained, as small TOML files that can be copied and edited.

The shipped ones lie in `recipes/`; every field is described at `Recipe` and `Stage`.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from hdrcli.errors import ReadError, UsageError

Schedule = Literal["cosine", "step", "constant"]
Precision = Literal["auto", "fp32", "bf16"]

_FOLDER = Path(__file__).parent / "recipes"
_WARM_UP = 50  # steps over which the rate of a stage rises
_STEPS = (0.5, 0.75, 0.9)  # parts of a stage after which the rate of a step schedule is halved


@dataclass(frozen=True, kw_only=True)
class Weight:
    """How much a part of the loss counts; with `after`, it grows from 0 there to its full weight at the stage's end."""

    weight: float
    after: float | None = None

    def at(self, progress: float) -> float:
        """The weight at a progress through the stage from 0 to 1."""
        if self.after is None:
            return self.weight
        return self.weight * max(progress - self.after, 0) / (1 - self.after)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a training, with an optimizer (AdamW) and a schedule of its own.

    share: of the whole time or steps, relative to the other stages. batch: samples per step, over all devices.
    rate: highest learning rate. decay: of weights, not of biases. schedule: of the rate, after 50 steps of warming up.
    average: decay per step of the averaged weights, which are those validated and kept. clip: largest gradient norm.
    trains: beginnings of the names of the parameters that learn; all where it is empty.
    loss: weights by part. options: what else the network's own training knows, see its module.
    """

    name: str
    share: float = 1.0
    batch: int = 2
    rate: float = 1e-3
    decay: float = 1e-4
    schedule: Schedule = "cosine"
    average: float = 0.999
    clip: float = 1.0
    trains: tuple[str, ...] = ()
    loss: Mapping[str, Weight] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def rate_at(self, progress: float, step: int) -> float:
        """The learning rate at a progress from 0 to 1 and a step of the stage."""
        factors = {
            "cosine": 0.5 + 0.5 * cos(pi * min(progress, 1.0)),
            "step": 0.5 ** sum(progress >= place for place in _STEPS),
            "constant": 1.0,
        }
        return self.rate * min(1.0, (step + 1) / _WARM_UP) * factors[self.schedule]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: its build arguments, its data, its stages in order.

    precision: of the forward pass; "auto" is bf16 where this machine is faster with it. checks: validations in a run.
    data: settings of the samples, see the network's module.
    """

    net: str
    precision: Precision = "auto"
    checks: int = 10
    build: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...]

    def parts(self) -> list[str]:
        """All parts of the loss, in the order in which stages name them."""
        return list(dict.fromkeys(part for stage in self.stages for part in stage.loss))

    def table(self) -> dict[str, Any]:
        """The recipe as it would stand in a TOML file, every field written out."""
        table = asdict(self)
        for stage in table["stages"]:
            stage["loss"] = {
                name: weight["weight"] if weight["after"] is None else weight for name, weight in stage["loss"].items()
            }
            stage["trains"] = list(stage["trains"])
        return {**table, "stages": list(table["stages"])}


def shipped() -> list[str]:
    """Names of the recipes that come with hdrcli."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(recipe: str) -> Recipe:
    """The recipe in a TOML file, or the shipped one of that name."""
    path = _FOLDER / f"{recipe}.toml" if recipe in shipped() else Path(recipe)
    if not path.is_file():
        raise UsageError(
            f"there is no recipe {recipe!r}", hint=f"give a TOML file, or one of these: {', '.join(shipped())}"
        )
    return read(path)


def read(path: Path) -> Recipe:
    """Reads and checks a recipe; a wrong one is a UsageError that names the file and the field."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"the recipe {path} cannot be read: {error}", hint="check the path and the disk") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe {path} is no TOML: {error}", hint="mend that line") from error
    try:
        return _recipe(table)
    except ValueError as error:
        raise UsageError(f"the recipe {path} {error}", hint=f"a shipped one shows the fields: {_FOLDER}") from error


def _recipe(table: Mapping[str, Any]) -> Recipe:
    stages = table.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise ValueError("has no [[stages]]")
    recipe = _made(Recipe, {**table, "stages": tuple(_stage(stage) for stage in stages)}, "it")
    if len({stage.name for stage in recipe.stages}) < len(stages):
        raise ValueError("has two stages of one name")
    return recipe


def _stage(table: Mapping[str, Any]) -> Stage:
    place = f"its stage {table.get('name', '')!r}"
    loss = table.get("loss")
    if not isinstance(loss, dict) or not loss:
        raise ValueError(f"is wrong: {place} has no table 'loss'")
    weights = {
        name: _made(Weight, weight if isinstance(weight, dict) else {"weight": weight}, f"loss {name!r} of {place}")
        for name, weight in loss.items()
    }
    trains = table.get("trains", [])
    if not isinstance(trains, list) or not all(isinstance(name, str) for name in trains):
        raise ValueError(f"is wrong: {place} has a field 'trains' that is no list of strings")
    return _made(Stage, {**table, "loss": weights, "trains": tuple(trains)}, place)


_Made = TypeVar("_Made", Recipe, Stage, Weight)


def _made(kind: type[_Made], table: Mapping[str, Any], place: str) -> _Made:
    """The dataclass of a table whose fields all exist and make sense; ValueError otherwise."""
    known = [item.name for item in fields(kind)]
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"is wrong: {place} has an unknown field {name!r}; there are {', '.join(known)}")
        if not _RULES[name](value):
            raise ValueError(f"is wrong: {place} has a field {name!r} that cannot be {value!r}")
    missing = [name for name in ("net", "name", "weight") if name in known and name not in table]
    if missing:
        raise ValueError(f"is wrong: {place} lacks the field {missing[0]!r}")
    return kind(**table)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value >= 0


def _is_positive(value: object) -> bool:
    return _is_number(value) and value != 0


def _is_part(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


_RULES: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("net", "name"), _is_text),
    **dict.fromkeys(("batch", "checks"), _is_count),
    **dict.fromkeys(("share", "rate", "clip"), _is_positive),
    **dict.fromkeys(("decay", "weight"), _is_number),
    **dict.fromkeys(("average", "after"), _is_part),
    **dict.fromkeys(("build", "data", "loss", "options"), _is_table),
    **dict.fromkeys(("stages", "trains"), lambda value: isinstance(value, tuple)),
    "schedule": lambda value: value in get_args(Schedule),
    "precision": lambda value: value in get_args(Precision),
}
