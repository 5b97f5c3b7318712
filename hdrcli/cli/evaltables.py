"""The tables of `hdr eval`."""

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hdrcli.cli import render
from hdrcli.protocols import METRICS
from hdrcli.tasks import summary
from hdrcli.tasks.summary import number

if TYPE_CHECKING:
    from hdrcli.tasks.results import Evaluation

_WIDE = 250  # characters of a table that no terminal limits


def show(result: "Evaluation", *, every: bool) -> None:
    """Means, differences and the worst pictures on standard output, each picture too where `every`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    for key, value in result.facts.items():
        console.print(f"{key}: {escape(value)}")
    for note in result.notes:
        render.say(f"note: {note}")
    if not result.rows:
        return
    if every:
        console.print(_images(result))
    console.print(_means(result))
    if len(summary.systems(result.rows)) > 1:
        console.print(_differences(result))
    console.print(_worst(result))


def _table(title: str, *columns: str, result: "Evaluation") -> Table:
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for name in result.plan.metrics:
        table.add_column(METRICS[name].label, justify="right")
    return table


def _images(result: "Evaluation") -> Table:
    table = _table(f"each picture ({result.protocol})", "picture", "system", result=result)
    for row in result.rows:
        scores = [number(row.scores[name], name) for name in result.plan.metrics]
        table.add_row(escape(summary.label(row)), escape(row.system), *scores)
    return table


def _means(result: "Evaluation") -> Table:
    table = _table(f"means ({result.protocol})", "system", "pictures", result=result)
    for system in summary.systems(result.rows):
        for group in summary.groups(result.rows):
            found = [summary.mean(result.rows, system, group, name) for name in result.plan.metrics]
            count = max(mean.pictures for mean in found)
            cells = [number(mean.value, name) for mean, name in zip(found, result.plan.metrics, strict=True)]
            table.add_row(escape(system), f"{group} {count}", *cells)
    return table


def _differences(result: "Evaluation") -> Table:
    base = summary.first_system(result.rows) or ""
    table = _table(f"difference to {base}, mean [95 % interval by bootstrap over scenes]", "system", result=result)
    for system in summary.systems(result.rows):
        if system == base:
            continue
        cells = []
        for name in result.plan.metrics:
            cells.append(escape(summary.in_words(summary.difference(result.rows, system, base, name), name)))
        table.add_row(escape(system), *cells)
    return table


def _worst(result: "Evaluation") -> Table:
    table = Table("system", "score", "worst first", title="worst pictures", title_justify="left", box=None)
    for system in summary.systems(result.rows):
        for name in result.plan.metrics:
            worst = summary.worst(result.rows, system, name)
            named = ", ".join(f"{summary.label(row)} {number(row.scores[name], name)}" for row in worst)
            if worst:
                table.add_row(escape(system), METRICS[name].label, escape(named))
    return table
