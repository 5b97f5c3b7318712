"""What develop and expand do alike: files in, one model over all of them, files out, an outcome for each."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from hdrcli import files
from hdrcli.batch import Outcome, run
from hdrcli.cli import render
from hdrcli.cli.options import Shared
from hdrcli.errors import HdrError, UsageError
from hdrcli.files import STREAM, Job

if TYPE_CHECKING:
    from hdrcli.codecs import WriteOptions
    from hdrcli.tasks.common import Made
    from hdrcli.zoo import Model

Decoded = TypeVar("Decoded")

ULTRA_HDR = "uhdr"  # of light and the finished picture together, in a JPEG file

_STUDIED = 5  # frames of a clip
_MOST_WORKERS = 4  # each holds a picture


def plan(
    shared: Shared, *, suffix: str, formats: Sequence[str], names: Sequence[str] | None, accepts: Callable[[Path], bool]
) -> tuple[list[Job], list[str]]:
    """The jobs, with the output of the first format, and the formats: those named, or OUT's, or the first of `formats`.

    Outputs of further formats lie beside the first, see `targets`.
    """
    from hdrcli import codecs

    for name in names or ():
        if name not in formats:
            raise UsageError(f"{name!r} is not a format of this command", hint="formats: " + ", ".join(formats))
    kind = codecs.format_of(Path(shared.out)) if shared.out else None
    of_out = [name for name in formats if _codec(name) == kind]
    chosen = list(dict.fromkeys(names or of_out or formats[:1]))
    jobs = files.plan(
        shared.input_names(),
        out=shared.out,
        recursive=shared.recursive,
        suffix=suffix,
        extension=_extension(chosen[0]),
        accepts=accepts,
        extensions=[extension for known in codecs.FORMATS.values() for extension in known.suffixes],
    )
    for job in jobs:
        if job.target == STREAM:
            _check_stream(shared, chosen)
        elif codecs.format_of(job.target) != _codec(chosen[0]):
            raise UsageError(
                f"{job.target} does not end like a {chosen[0]} file", hint="formats: " + ", ".join(formats)
            )
    return jobs, chosen


def targets(job: Job, formats: Sequence[str]) -> list[tuple[str, Path]]:
    """Each format and the output of a job in it."""
    further = [(name, job.target.with_suffix(_extension(name))) for name in formats[1:]]
    return [(formats[0], job.target), *further]


def studied_sources(jobs: Sequence[Job]) -> list[Path]:
    """Some inputs, evenly over a clip, from which what holds for all of it is found."""
    if any(job.source == STREAM for job in jobs):
        raise UsageError("standard input is no sequence", hint="name the frames, such as frame_%04d.png")
    places = {round(i * (len(jobs) - 1) / (_STUDIED - 1)) for i in range(_STUDIED)}
    return [files.existing(jobs[place].source) for place in sorted(places)]


def carry_out(
    shared: Shared,
    jobs: Sequence[Job],
    model: "Model",
    decode: Callable[[Path | bytes], Decoded],
    process: Callable[[Decoded], "Made"],
    *,
    formats: Sequence[str],
    options: "WriteOptions",
) -> None:
    """Runs the jobs and reports on each output; ends with exit code 1 if one failed, 130 if interrupted.

    Each picture is decoded and processed once, whatever the number of formats.
    """
    from hdrcli import infer

    chosen = infer.describe(shared.compute())
    if shared.verbose:
        render.say(f"{model.card.name} on {chosen.device}, {chosen.precision} ({chosen.reason})")
    files.sweep({job.target.parent for job in jobs if job.target != STREAM})

    further: dict[Job, list[Outcome]] = {}  # outcomes of all outputs of a job but the first

    def there(target: Path) -> bool:
        return not shared.overwrite and target != STREAM and target.exists()

    def finished(job: Job) -> bool:
        if done := all(there(target) for _, target in targets(job, formats)):
            others = targets(job, formats)[1:]
            further[job] = [Outcome(job=Job(job.source, target), status="skipped") for _, target in others]
        return done

    def written(job: Job, made: "Made", name: str) -> Outcome:
        if there(job.target):
            return Outcome(job=job, status="skipped")
        return Outcome(
            job=job,
            status="written",
            width=made.image.width,
            height=made.image.height,
            model=model.card.name,
            device=made.result.device,
            precision=made.result.precision,
            tiles=made.result.tiles,
            notes=tuple(_write(job.target, lambda path: _encode(made, path, name, options))),
        )

    def encode(job: Job, made: "Made") -> Outcome:
        outcomes = []
        for name, target in targets(job, formats):
            output = Job(job.source, target)
            try:
                outcomes.append(written(output, made, name))
            except HdrError as error:
                outcomes.append(Outcome(job=output, status="failed", error=error.message, hint=error.hint))
        first, *further[job] = outcomes
        notes = _write_preview(job.target, made) if shared.preview else []
        return replace(first, notes=(*made.image.meta.notes, *first.notes, *notes))

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
            for first in outcomes:
                tick()
                for outcome in (first, *further.pop(first.job, [])):
                    seen.append(outcome)
                    render.outcome(outcome, json=shared.json, quiet=shared.quiet, verbose=shared.verbose)
    except KeyboardInterrupt:
        interrupted = True
    if not shared.quiet:
        render.say(render.summary(seen, time.perf_counter() - start, interrupted=interrupted))
    if interrupted:
        raise typer.Exit(130)
    if any(outcome.status == "failed" for outcome in seen):
        raise typer.Exit(1)


def _codec(name: str) -> str:
    """The row of `codecs.FORMATS` that writes a format of the command line."""
    return "jpg" if name == ULTRA_HDR else name


def _extension(name: str) -> str:
    from hdrcli import codecs

    return codecs.FORMATS[_codec(name)].suffixes[0]


def _encode(made: "Made", path: Path, name: str, options: "WriteOptions") -> list[str]:
    from hdrcli import codecs

    if name != ULTRA_HDR:
        return codecs.write(made.image, path, name, options)
    assert made.partner is not None, "checked before"
    light, base = sorted([made.image, made.partner], key=lambda image: image.transfer)  # "linear" comes before "srgb"
    return codecs.write(light, path, _codec(name), replace(options, base=base))


def _check_stream(shared: Shared, formats: Sequence[str]) -> None:
    if len(formats) > 1:
        raise UsageError("standard output takes one picture, not several formats", hint="name one --format")
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
