"""What develop and expand do alike: files in, one model over all of them, files out, an outcome for each."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from hdrcli import files
from hdrcli.batch import Outcome, run
from hdrcli.cli import render
from hdrcli.cli.options import Shared
from hdrcli.errors import UsageError
from hdrcli.files import STREAM, Job

if TYPE_CHECKING:
    from hdrcli.codecs import WriteOptions
    from hdrcli.tasks.common import Made
    from hdrcli.zoo import Model

Decoded = TypeVar("Decoded")

_MOST_WORKERS = 4  # each holds a picture


def plan(
    shared: Shared, *, suffix: str, formats: Sequence[str], format_name: str | None, accepts: Callable[[Path], bool]
) -> tuple[list[Job], str]:
    """The jobs, and the format of their outputs: the one named, or that of OUT, or the first of `formats`."""
    from hdrcli import codecs

    if format_name is not None and format_name not in formats:
        raise UsageError(f"{format_name!r} is not a format of this command", hint="formats: " + ", ".join(formats))
    of_out = codecs.format_of(Path(shared.out)) if shared.out else None
    chosen = format_name or (of_out if of_out in formats else None) or formats[0]
    jobs = files.plan(
        shared.input_names(),
        out=shared.out,
        recursive=shared.recursive,
        suffix=suffix,
        extension=codecs.FORMATS[chosen].suffixes[0],
        accepts=accepts,
        extensions=[extension for known in codecs.FORMATS.values() for extension in known.suffixes],
    )
    for job in jobs:
        if job.target == STREAM:
            _check_stream(shared)
        elif codecs.format_of(job.target) != chosen:
            raise UsageError(f"{job.target} does not end like a {chosen} file", hint="formats: " + ", ".join(formats))
    return jobs, chosen


def carry_out(
    shared: Shared,
    jobs: Sequence[Job],
    model: "Model",
    decode: Callable[[Path | bytes], Decoded],
    process: Callable[[Decoded], "Made"],
    *,
    format_name: str,
    options: "WriteOptions",
) -> None:
    """Runs the jobs and reports on each; ends with exit code 1 if one failed, 130 if interrupted."""
    from hdrcli import codecs, infer

    chosen = infer.describe(shared.compute())
    if shared.verbose:
        render.say(f"{model.card.name} on {chosen.device}, {chosen.precision} ({chosen.reason})")
    files.sweep({job.target.parent for job in jobs if job.target != STREAM})

    def finished(job: Job) -> bool:
        return not shared.overwrite and job.target != STREAM and job.target.exists()

    def encode(job: Job, made: "Made") -> Outcome:
        notes = _write(job.target, lambda path: codecs.write(made.image, path, format_name, options))
        if shared.preview:
            notes += _write_preview(job.target, made)
        return Outcome(
            job=job,
            status="written",
            width=made.image.width,
            height=made.image.height,
            model=model.card.name,
            device=made.result.device,
            precision=made.result.precision,
            tiles=made.result.tiles,
            notes=(*made.image.meta.notes, *notes),
        )

    outcomes = run(
        jobs,
        lambda job: decode(_source(job)),
        lambda job, decoded: process(decoded),
        encode,
        workers=shared.jobs or min(_MOST_WORKERS, 1 + (os.cpu_count() or 1)),
        skip=finished,
    )
    seen: list[Outcome] = []
    start = time.perf_counter()
    interrupted = False
    try:
        with closing(outcomes), render.progress(len(jobs), shown=not shared.quiet) as tick:
            for outcome in outcomes:
                seen.append(outcome)
                tick()
                render.outcome(outcome, json=shared.json, quiet=shared.quiet, verbose=shared.verbose)
    except KeyboardInterrupt:
        interrupted = True
    if not shared.quiet:
        render.say(render.summary(seen, time.perf_counter() - start, interrupted=interrupted))
    if interrupted:
        raise typer.Exit(130)
    if any(outcome.status == "failed" for outcome in seen):
        raise typer.Exit(1)


def _check_stream(shared: Shared) -> None:
    if shared.json:
        raise UsageError("standard output cannot take both the picture and --json", hint="name an output with -o")
    if shared.preview:
        raise UsageError("a preview lies beside its output, and standard output has no place", hint="use -o FILE")
    if sys.stdout.isatty():
        raise UsageError("a picture is not written to a terminal", hint="name an output with -o, or redirect: > FILE")


def _source(job: Job) -> Path | bytes:
    return sys.stdin.buffer.read() if job.source == STREAM else files.existing(job.source)


def _write(target: Path, write: Callable[[Path], list[str]]) -> list[str]:
    if target != STREAM:
        with files.atomic_write(target) as part:
            return write(part)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        notes = write(path)
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return notes


def _write_preview(target: Path, made: "Made") -> list[str]:
    from hdrcli import codecs
    from hdrcli.tasks.preview import preview

    small, note = preview(made.image)
    place = target.with_name(f"{target.stem}_preview.png")
    return [note, *_write(place, lambda path: codecs.write(small, path, "png", codecs.WriteOptions(metadata=False)))]
