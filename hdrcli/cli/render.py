"""The one place that prints: data on standard output, everything for people on standard error."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hdrcli.batch import Outcome
from hdrcli.errors import HdrError


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr)  # noqa: T201


def data(text: str) -> None:
    """A line of data."""
    print(text, flush=True)  # noqa: T201


def json_line(value: Mapping[str, object] | Sequence[object]) -> None:
    """One JSON value on one line of standard output."""
    text = json.dumps(value, ensure_ascii=False)
    data(text if text.isprintable() else json.dumps(value))  # names may hold what is no text


def failure(error: HdrError) -> None:
    """An error that ends the run, with its hint."""
    say(f"hdr: {error.message}")
    if error.hint:
        say(f"     {error.hint}")


def failed_file(source: Path, error: str, hint: str) -> None:
    """An error of one file, which the error mostly names itself."""
    name = "" if source.name in error else f"{source}: "
    say(f"failed: {name}{error}" + (f" ({hint})" if hint else ""))


def outcome_record(outcome: Outcome) -> dict[str, object]:
    """The JSON object of one outcome; numbers that do not apply are null."""
    made = outcome.status == "written"
    return {
        "source": str(outcome.job.source),
        "target": str(outcome.job.target),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "width": outcome.width if made else None,
        "height": outcome.height if made else None,
        "model": outcome.model or None,
        "device": outcome.device or None,
        "precision": outcome.precision or None,
        "tiles": outcome.tiles if made else None,
        "notes": list(outcome.notes),
        "error": outcome.error or None,
        "hint": outcome.hint or None,
    }


def outcome(outcome: Outcome, *, json: bool, quiet: bool, verbose: bool) -> None:
    """Reports on one file: as data where `json`, and to people what they want to know."""
    if json:
        json_line(outcome_record(outcome))
    source, target, _ = outcome.job
    if outcome.status == "failed":
        failed_file(source, outcome.error, outcome.hint)
        return
    if verbose:
        tiles = f"{outcome.tiles} tile{'s' if outcome.tiles > 1 else ''}"
        detail = f" in {outcome.seconds:.2f} s, {tiles}" if outcome.status == "written" else ""
        say(f"{outcome.status}: {source} -> {target}{detail}")
    if not quiet:
        for note in outcome.notes:
            say(f"note: {source}: {note}")


def summary(outcomes: Sequence[Outcome], seconds: float, *, left: int = 0, interrupted: bool = False) -> str:
    """The last line of a run: "3 written, 1 skipped, 1 failed in 12.3 s (lumen on cpu, fp32)".

    left: inputs without an outcome, where the run was stopped.
    """
    counts = Counter(outcome.status for outcome in outcomes)
    parts = [f"{counts[status]} {status}" for status in ("written", "skipped", "failed") if counts[status]]
    text = f"{', '.join(parts) or 'nothing done'} in {seconds:.1f} s"
    ways = dict.fromkeys(
        f"{o.model} on {o.device}, {o.precision}" for o in outcomes if o.model and o.status == "written"
    )
    text += f" ({'; '.join(ways)})" if ways else ""
    text += f"; {left} left for another run" if left else ""
    if interrupted:
        return f"interrupted: {text}"
    return f"stopped: {text}" if left else text


@contextmanager
def progress(total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error with count, speed and time left, where that is a terminal and there are several files.

    Yields what is to be called after each file.
    """
    if not (shown and total > 1 and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        row = bar.add_task("", total=total, speed="")

        def tick() -> None:
            bar.advance(row)
            speed = bar.tasks[0].speed
            bar.update(row, speed=f"{speed:.2f} files/s" if speed else "")

        yield tick
