"""Many pictures, one device: while one picture is on the device, others are read and written.

    worker 1:  decode | process | encode | decode | . . .
    worker 2:           decode  |        | process | encode | . . .

Each joblib worker carries one picture at a time through all three stages, so memory is bounded by the number of
workers; the device belongs to one of them at a time.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from threading import Condition, Lock
from time import perf_counter
from typing import Literal, TypeVar

from hdrcli.errors import HdrError, OutOfMemoryError
from hdrcli.files import Job

Decoded = TypeVar("Decoded")
Processed = TypeVar("Processed")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one job.

    seconds: time spent on this file alone, waiting left out. width, height: of the picture written.
    tiles: windows the network was run on. notes: what the user should know, one sentence each.
    """

    job: Job
    status: Literal["written", "skipped", "failed"]
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    model: str = ""
    device: str = ""
    precision: str = ""
    tiles: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""


class _Crew:
    """What the workers of one run share: the device, whose turn is one picture long, and the call to stop."""

    def __init__(self) -> None:
        self.device = Lock()
        self._changed = Condition()
        self._busy = 0
        self._stopped = False

    def start(self) -> bool:
        """Whether another job may begin; each one that does ends with `end`."""
        with self._changed:
            self._busy += not self._stopped
            return not self._stopped

    def end(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Lets no other job begin or reach the device, and waits for those that are past it."""
        with self._changed:
            self._stopped = True
            self._changed.wait_for(lambda: self._busy == 0)


def run(
    jobs: Sequence[Job],
    decode: Callable[[Job], Decoded],
    process: Callable[[Job, Decoded], Processed],
    encode: Callable[[Job, Processed], Outcome],
    *,
    workers: int,
    skip: Callable[[Job], bool] = lambda job: False,
) -> Generator[Outcome, None, None]:
    """Carries every job through the three stages and yields outcomes in the order of the jobs.

    `process` runs for one job at a time; `decode` and `encode` of others run beside it. A job for which `skip` holds
    is not touched. HdrError and MemoryError make a job fail while the others go on; any other exception is a bug and
    propagates. On leaving early, as by Ctrl-C, what has not reached the device is dropped and the rest is finished.
    """
    from joblib import Parallel, delayed  # late, as it brings numpy, and help has no use for that

    crew = _Crew()

    def carry(job: Job) -> Outcome | None:
        if not crew.start():
            return None
        try:
            return Outcome(job=job, status="skipped") if skip(job) else _carry(crew, job, decode, process, encode)
        finally:
            crew.end()

    team = Parallel(n_jobs=workers, backend="threading", return_as="generator", batch_size=1)
    outcomes = team(delayed(carry)(job) for job in jobs)
    try:
        for outcome in outcomes:  # noqa: UP028 - `yield from` would close joblib's generator, and it complains
            yield outcome
    finally:
        crew.stop()
        deque(outcomes, maxlen=0)  # lets joblib come to its end: what had not begun comes back at once


def _carry(
    crew: _Crew,
    job: Job,
    decode: Callable[[Job], Decoded],
    process: Callable[[Job, Decoded], Processed],
    encode: Callable[[Job, Processed], Outcome],
) -> Outcome | None:
    """All stages of one job; its seconds leave out the wait for the device. None where the run was stopped."""
    start, waited = perf_counter(), 0.0
    try:
        decoded = decode(job)
        queued = perf_counter()
        with crew.device:
            waited = perf_counter() - queued
            if crew.stopped():
                return None
            processed = process(job, decoded)
        outcome = encode(job, processed)
    except (HdrError, MemoryError) as error:
        outcome = _failure(job, error)
    return replace(outcome, seconds=perf_counter() - start - waited)


def _failure(job: Job, error: HdrError | MemoryError) -> Outcome:
    if not isinstance(error, HdrError):
        error = OutOfMemoryError("there is not enough memory for this picture", hint="use fewer --jobs")
    return Outcome(job=job, status="failed", error=error.message, hint=error.hint)
