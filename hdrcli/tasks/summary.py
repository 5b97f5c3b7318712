"""What many rows of scores come down to: means, differences with their uncertainty, the worst pictures."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hdrcli.protocols import METRICS
from hdrcli.tasks.evaluate import INPUT, Row

ALL = "all"  # the group that holds every picture
WORST = 5
_RESAMPLES = 10000


class Mean(NamedTuple):
    """Mean of a score over the `pictures` to which it applies; NaN where there is none."""

    value: float
    pictures: int


class Difference(NamedTuple):
    """Mean difference to the first system, with a 95 % interval: NaN with fewer than two scenes."""

    mean: float
    low: float
    high: float
    scenes: int


def systems(rows: Sequence[Row]) -> list[str]:
    """The systems in order, the unprocessed input first."""
    return list(dict.fromkeys(row.system for row in rows))


def first_system(rows: Sequence[Row]) -> str | None:
    """The system that all others are compared with: the first that is not the input."""
    return next((system for system in systems(rows) if system != INPUT), None)


def groups(rows: Sequence[Row]) -> list[str]:
    """The groups in order, all pictures last."""
    named = [group for group in dict.fromkeys(row.group for row in rows) if group]
    return [*named, ALL]


def mean(rows: Sequence[Row], system: str, group: str, metric: str) -> Mean:
    """Over the pictures of a group."""
    values = [row.scores[metric] for row in rows if row.system == system and group in (row.group, ALL)]
    applying = [value for value in values if not np.isnan(value)]
    return Mean(float(np.mean(applying)) if applying else float("nan"), len(applying))


def difference(rows: Sequence[Row], system: str, base: str, metric: str) -> Difference:
    """Paired by picture; the bootstrap draws scenes, since several pictures of one scene are no independent ones."""
    found = {(row.image, row.group): row.scores[metric] for row in rows if row.system == base}
    scenes: dict[str, list[float]] = {}
    for row in rows:
        if row.system == system and (row.image, row.group) in found:
            value = row.scores[metric] - found[row.image, row.group]
            if np.isfinite(value):
                scenes.setdefault(row.scene, []).append(value)
    if not scenes:
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    sums = np.array([np.sum(values) for values in scenes.values()])
    counts = np.array([len(values) for values in scenes.values()])
    centre = float(sums.sum() / counts.sum())
    if len(scenes) < 2:
        return Difference(centre, float("nan"), float("nan"), len(scenes))
    drawn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES)
    low, high = np.percentile(drawn @ sums / (drawn @ counts), [2.5, 97.5])
    return Difference(centre, float(low), float(high), len(scenes))


def worst(rows: Sequence[Row], system: str, metric: str) -> list[Row]:
    """The five pictures with the worst score, worst first."""
    own = [row for row in rows if row.system == system and not np.isnan(row.scores[metric])]
    return sorted(own, key=lambda row: row.scores[metric], reverse=not METRICS[metric].higher)[:WORST]


def label(row: Row) -> str:
    """The picture's name with its group."""
    return f"{row.image} ({row.group})" if row.group else row.image


def number(value: float, metric: str, *, signed: bool = False) -> str:
    """A score with the decimals of its metric, "-" where it does not apply."""
    if math.isnan(value):
        return "-"
    return f"{value:{'+' if signed else ''}.{METRICS[metric].decimals}f}"


def in_words(found: Difference, metric: str) -> str:
    """A difference with its interval in brackets, where it has one."""
    mean, low, high = (number(value, metric, signed=True) for value in found[:3])
    return mean if math.isnan(found.low) else f"{mean} [{low}, {high}]"
