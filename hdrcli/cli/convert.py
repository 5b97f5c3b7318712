"""What develop and expand do alike: files in, one model over all of them, files out, an outcome for each."""

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from hdrcli import files
from hdrcli.batch import Outcome, run
from hdrcli.cli import render
from hdrcli.cli.options import Backend, Shared
from hdrcli.errors import UsageError
from hdrcli.files import STREAM, Job

if TYPE_CHECKING:
    from hdrcli.cluster import Cluster
    from hdrcli.codecs import WriteOptions
    from hdrcli.isolation import Decoders
    from hdrcli.tasks.convert import Conversion, Way

_STUDIED = 5  # frames of a clip
_MOST_WORKERS = 4  # each holds a picture


def plan(
    shared: Shared, *, suffix: str, formats: Sequence[str], names: Sequence[str] | None, accepts: Callable[[Path], bool]
) -> tuple[list[Job], list[str]]:
    """The jobs, with the output of the first format, and the formats: those named, or OUT's, or the first of `formats`.

    Outputs of further formats lie beside the first.
    """
    from hdrcli import codecs

    for name in names or ():
        if name not in formats:
            raise UsageError(f"{name!r} is not a format of this command", hint="formats: " + ", ".join(formats))
    kind = codecs.format_of(Path(shared.out)) if shared.out else None
    of_out = [name for name in formats if codecs.codec_of(name) == kind]
    chosen = list(dict.fromkeys(names or of_out or formats[:1]))
    jobs = files.plan(
        shared.input_names(),
        out=shared.out,
        recursive=shared.recursive,
        suffix=suffix,
        extension=codecs.extension(chosen[0]),
        accepts=accepts,
        extensions=[extension for known in codecs.FORMATS.values() for extension in known.suffixes],
    )
    for job in jobs:
        if job.target == STREAM:
            _check_stream(shared, chosen)
        elif codecs.format_of(job.target) != codecs.codec_of(chosen[0]):
            raise UsageError(
                f"{job.target} does not end like a {chosen[0]} file", hint="formats: " + ", ".join(formats)
            )
    return jobs, chosen


def begin_first(shared: Shared, jobs: Sequence[Job], decoders: "Decoders", reader: Callable[..., Any]) -> None:
    """Has the first file decoded while torch is imported."""
    first = jobs[0]
    if first.source == STREAM or shared.backend is not Backend.LOCAL:
        return
    if shared.overwrite or not files.is_written(first.target):
        decoders.begin(reader, first.source)


def studied_sources(jobs: Sequence[Job]) -> list[Path]:
    """Some inputs, evenly over a clip, from which what holds for all of it is found."""
    if any(job.source == STREAM for job in jobs):
        raise UsageError("standard input is no sequence", hint="name the frames, such as frame_%04d.png")
    places = {round(i * (len(jobs) - 1) / (_STUDIED - 1)) for i in range(_STUDIED)}
    return [jobs[place].source for place in sorted(places)]


def carry_out(
    shared: Shared,
    jobs: Sequence[Job],
    way: "Way",
    decoders: "Decoders",
    *,
    formats: Sequence[str],
    options: "WriteOptions",
) -> None:
    """Runs the jobs and reports on each output; ends with exit code 1 if one failed, 130 if interrupted."""
    from hdrcli import memory
    from hdrcli.tasks.convert import Conversion

    conversion = Conversion(
        way=way,
        decoders=decoders,
        formats=formats,
        options=options,
        overwrite=shared.overwrite,
        preview=shared.preview,
    )
    stopped = Event()

    def stop() -> None:
        stopped.set()
        decoders.close()

    seen: list[Outcome] = []
    start = time.perf_counter()
    with (
        shared.cluster() as cluster,
        closing(_begun(shared, jobs, conversion, cluster, stopped)) as outcomes,
        _interruption(stop) as interrupted,
        render.progress(len(jobs), shown=not shared.quiet) as tick,
        memory.kept(),
    ):
        for of_job in outcomes:
            tick()
            for outcome in of_job:
                seen.append(outcome)
                render.outcome(outcome, json=shared.json, quiet=shared.quiet, verbose=shared.verbose)
            if shared.enough(len({outcome.job.source for outcome in seen if outcome.status == "failed"})):
                stop()
    _conclude(shared, jobs, seen, time.perf_counter() - start, interrupted.is_set())


def _begun(
    shared: Shared, jobs: Sequence[Job], conversion: "Conversion", cluster: "Cluster | None", stopped: Event
) -> Generator[list[Outcome], None, None]:
    """The outcomes of the jobs as they come, from this machine or a cluster."""
    from hdrcli import cluster as clusters
    from hdrcli import infer

    files.sweep({job.target.parent for job in jobs if job.target != STREAM})
    if cluster is not None:
        if not cluster.workers:
            render.say(f"{shared.backend} has no workers yet: waiting for them")
        return clusters.run(jobs, conversion.in_one_precision(), cluster, stopped=stopped)
    conversions = conversion.on_each_device()
    for way in (one.way for one in conversions):
        chosen = infer.describe(way.compute, way.model.network if shared.verbose else None)
        if shared.verbose:
            render.say(f"{way.model.card.name} on {chosen.device}, {chosen.precision} ({chosen.reason})")
    workers = shared.jobs or min(_MOST_WORKERS * len(conversions), len(conversions) + (os.cpu_count() or 1))
    return run(jobs, conversions, workers=workers, stopped=stopped, enough=shared.enough)


@contextmanager
def _interruption(stop: Callable[[], None]) -> Iterator[Event]:
    """While inside, Ctrl-C calls `stop` and sets the event, so that what was begun comes to its end; again, it ends."""
    interrupted = Event()

    def wind_down(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()
        Thread(target=stop).start()  # which takes locks that the main thread may hold at this moment

    before = signal.signal(signal.SIGINT, wind_down)
    try:
        yield interrupted
    except KeyboardInterrupt:
        interrupted.set()
    finally:
        signal.signal(signal.SIGINT, before)


def _conclude(shared: Shared, jobs: Sequence[Job], seen: Sequence[Outcome], seconds: float, interrupted: bool) -> None:
    """The end of a report: the list of what failed, the summary, the exit code."""
    failed = dict.fromkeys(outcome.job for outcome in seen if outcome.status == "failed")
    if shared.list_failed is not None:
        sources = dict.fromkeys(files.listed(job) for job in failed if job.source != STREAM)
        files.write_list(Path(shared.list_failed), list(sources), null=shared.null)
    if not shared.quiet:
        left = len(jobs) - len({outcome.job.source for outcome in seen})
        render.say(render.summary(seen, seconds, left=left, interrupted=interrupted))
    if interrupted:
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(1)


def _check_stream(shared: Shared, formats: Sequence[str]) -> None:
    if len(formats) > 1:
        raise UsageError("standard output takes one picture, not several formats", hint="name one --format")
    if shared.json:
        raise UsageError("standard output cannot take both the picture and --json", hint="name an output with -o")
    if shared.preview:
        raise UsageError("a preview lies beside its output, and standard output has no place", hint="use -o FILE")
    if sys.stdout.isatty():
        raise UsageError("a picture is not written to a terminal", hint="name an output with -o, or redirect: > FILE")
