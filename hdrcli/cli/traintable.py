"""How a training is watched: a live table on a terminal, a line per validation elsewhere."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hdrcli.cli import render

if TYPE_CHECKING:
    from rich.table import Table

    from hdrcli.training.loop import Report

_KEPT = 12  # validations that stay in sight


@contextmanager
def watching(*, quiet: bool) -> Iterator[Callable[["Report"], None]]:
    """Yields what is to be called after each step."""
    if quiet or not sys.stderr.isatty():
        yield _silent if quiet else _line
        return
    from rich.console import Console
    from rich.live import Live

    checks: list[Report] = []
    with Live(console=Console(stderr=True), refresh_per_second=4, redirect_stdout=False) as live:

        def show(report: "Report") -> None:
            if report.scores:
                checks.append(report)
            live.update(table(report, checks[-_KEPT:]))

        yield show


def table(now: "Report", checks: list["Report"]) -> "Table":
    """The present step under the last validations."""
    from rich.table import Table

    scores = list(dict.fromkeys(name for report in checks for name in report.scores))
    columns = ("done", "stage", "step", "rate", *now.losses, *scores, "samples/s", "waiting", "left")
    shown = Table(*columns, box=None, header_style="bold")
    if plain := next((report.plain for report in checks if report.plain), None):
        values = (f"{plain[name]:.3f}" if name in plain else "" for name in scores)
        shown.add_row("", "input", "", "", *("" for _ in now.losses), *values, style="dim")
    for report in [*checks, now]:
        style = "green" if report.best else "bold" if report is now else ""
        shown.add_row(
            f"{report.done:.0%}",
            report.stage,
            str(report.step),
            f"{report.rate:.2g}",
            *(f"{report.losses[name]:.4f}" if name in report.losses else "" for name in now.losses),
            *(f"{report.scores[name]:.3f}" if name in report.scores else "" for name in scores),
            f"{report.speed:.2f}",
            f"{report.waiting:.0%}",
            _time(report.left),
            style=style,
        )
    return shown


def _silent(report: "Report") -> None:
    pass


def _line(report: "Report") -> None:
    if report.scores:
        text = f"{report.done:4.0%}  {report.stage}  step {report.step}  {_numbers(report.losses)}"
        beside = f"  (input: {_numbers(report.plain)})" if report.plain else ""
        pace = f"{report.speed:.2f} samples/s, waiting {report.waiting:.0%}, {_time(report.left)} left"
        render.say(f"{text}  |  {_numbers(report.scores)}{beside}  |  {pace}")


def _numbers(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
