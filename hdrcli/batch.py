"""Many pictures, one device: while one picture is on the device, others are read and written.

    worker 1:  decode | process | encode | decode | . . .
    worker 2:           decode  |        | process | encode | . . .

Each joblib worker carries one picture at a time through all three stages, so memory is bounded by the number of
workers; the device belongs to one of them at a time.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Event, Lock, Semaphore
from time import perf_counter
from typing import Literal, TypeVar

from hdrcli.errors import HdrError, OutOfMemoryError
from hdrcli.files import Job

Decoded = TypeVar("Decoded")
Processed = TypeVar("Processed")
Item = TypeVar("Item")
Made = TypeVar("Made")


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


def in_order(
    items: Iterable[Item], work: Callable[[Item], Made | None], *, workers: int, stopped: Event
) -> Generator[Made, None, None]:
    """`work` on every item in joblib threads; yields what it makes in the order of the items, None left out.

    On leaving early, as by Ctrl-C, `stopped` is set, no other item begins, and what has begun is finished first.
    """
    from joblib import Parallel, delayed  # late, as it brings numpy, and help has no use for that

    places = Semaphore(workers)

    def carry(item: Item) -> Made | None:
        with places:
            return None if stopped.is_set() else work(item)

    made = Parallel(n_jobs=workers, backend="threading", return_as="generator", batch_size=1)(
        delayed(carry)(item) for item in items
    )
    try:
        for one in made:  # `yield from` would close joblib's generator, and it complains
            if one is not None:
                yield one
    finally:
        stopped.set()
        for _ in range(workers):
            places.acquire()  # once nobody works any more
        places.release(workers)
        deque(made, maxlen=0)  # lets joblib come to its end: what had not begun comes back at once


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
    device, stopped = Lock(), Event()

    def carry(job: Job) -> Outcome | None:
        if skip(job):
            return Outcome(job=job, status="skipped")
        return _carry(job, decode, process, encode, device, stopped)

    yield from in_order(jobs, carry, workers=workers, stopped=stopped)


def _carry(
    job: Job,
    decode: Callable[[Job], Decoded],
    process: Callable[[Job, Decoded], Processed],
    encode: Callable[[Job, Processed], Outcome],
    device: Lock,
    stopped: Event,
) -> Outcome | None:
    """All stages of one job; its seconds leave out the wait for the device. None where the run was stopped."""
    start, waited = perf_counter(), 0.0
    try:
        decoded = decode(job)
        queued = perf_counter()
        with device:
            waited = perf_counter() - queued
            if stopped.is_set():
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
