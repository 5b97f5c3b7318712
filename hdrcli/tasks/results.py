"""The outcome of an evaluation as data: one JSON object, or a CSV file."""

import csv
import io
import math
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from hdrcli import __version__, outside
from hdrcli.files import atomic_write
from hdrcli.metrics import pu
from hdrcli.protocols import METRICS
from hdrcli.tasks import summary
from hdrcli.tasks.evaluate import Plan, Row, Scored, speeds

SCHEMA = "hdrcli-eval/1"

_PYIQA = {"nima", "musiq", "liqe"}
_PACKAGES = {"cvvdp": {"cvvdp"}, "pyiqa": _PYIQA}  # other people's, and the scores they give


@dataclass(frozen=True)
class Evaluation:
    """All of one run. protocol: its name. about: what the data are."""

    protocol: str
    about: str
    plan: Plan
    scored: list[Scored]

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, picture by picture."""
        return [row for one in self.scored for row in one.rows]

    @property
    def failed(self) -> list[Scored]:
        """The samples that could not be scored."""
        return [one for one in self.scored if one.error]

    @cached_property
    def notes(self) -> list[str]:
        """What was corrected or assumed, each once: with the picture's name, or how many pictures it holds for."""
        counts = Counter(note for one in self.scored for note in one.notes)
        named = {note: one.sample.name for one in self.scored for note in one.notes}
        notes = [f"{named[n]}: {n}" if count == 1 else f"{count} pictures: {n}" for n, count in counts.items()]
        return notes + ([outside.PYIQA_LICENCE] if not _PYIQA.isdisjoint(self.plan.metrics) else [])

    @cached_property
    def facts(self) -> dict[str, str]:
        """What the numbers depend on, for people."""
        ways = dict.fromkeys(f"{r.system} on {r.device}, {r.precision}" for r in self.rows if r.device)
        speed = [f"{system} {value:.2f} s per megapixel" for system, value in speeds(self.rows).items()]
        facts = {
            "protocol": self.plan.protocol.about,
            "peak": self.plan.protocol.peak,
            "data": self.about,
            "run": "; ".join([*ways, *speed]),
            "versions": ", ".join(f"{name} {version}" for name, version in versions(self.plan.metrics).items()),
        }
        return {key: value for key, value in facts.items() if value}


def versions(metrics: Sequence[str]) -> dict[str, str]:
    """Of everything that these scores may depend on."""
    packages = {package for package, names in _PACKAGES.items() if not names.isdisjoint(metrics)}
    return {
        "hdrcli": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "torch": torch.__version__,
        **{package: version(package) for package in sorted(packages)},
    }


def as_json(result: Evaluation) -> dict[str, Any]:
    """The whole evaluation; scores that do not apply are null."""
    rows, metrics = result.rows, result.plan.metrics
    base = summary.first_system(rows)
    found = {
        "schema": SCHEMA,
        "protocol": result.protocol,
        "about": result.plan.protocol.about,
        "peak": result.plan.protocol.peak,
        "white_nits": pu.WHITE if result.protocol == "hanji" else None,
        "data": result.about,
        "versions": versions(metrics),
        "devices": sorted({row.device for row in rows if row.device}),
        "models": {
            name: {"sha256": model.card.sha256, "seconds_per_megapixel": speeds(rows).get(name)}
            for name, model in result.plan.models.items()
        },
        "metrics": {
            name: {"label": METRICS[name].label, "better": "higher" if METRICS[name].higher else "lower"}
            for name in metrics
        },
        "means": [
            {"system": system, "group": group}
            | {name: summary.mean(rows, system, group, name).value for name in metrics}
            for system in summary.systems(rows)
            for group in summary.groups(rows)
        ],
        "differences": [
            {"system": system, "to": base, "metric": name} | summary.difference(rows, system, base, name)._asdict()
            for system in summary.systems(rows)
            if base and system != base
            for name in metrics
        ],
        "worst": [
            {"system": system, "metric": name, "images": [summary.label(row) for row in worst]}
            for system in summary.systems(rows)
            for name in metrics
            if (worst := summary.worst(rows, system, name))
        ],
        "images": [
            {
                "image": row.image,
                "group": row.group,
                "scene": row.scene,
                "system": row.system,
                "megapixels": row.megapixels,
                "seconds": row.seconds,
                **row.scores,
            }
            for row in rows
        ],
        "notes": result.notes,
        "failed": [{"image": one.sample.name, "error": one.error, "hint": one.hint} for one in result.failed],
    }
    return {key: _clean(value) for key, value in found.items()}


def write_csv(result: Evaluation, path: Path) -> None:
    """One line per picture and system; a score that does not apply is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["protocol", "image", "group", "system", "seconds", *result.plan.metrics])
    for row in result.rows:
        scores = ["" if math.isnan(row.scores[name]) else repr(row.scores[name]) for name in result.plan.metrics]
        seconds = "" if row.seconds is None else f"{row.seconds:.4f}"
        writer.writerow([result.protocol, row.image, row.group, row.system, seconds, *scores])
    with atomic_write(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def _clean(value: Any) -> Any:
    """The same without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
