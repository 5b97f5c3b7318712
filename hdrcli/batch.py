"""Many pictures, one device or a few: while one picture is on the device, others are read and written.

    worker 1:  decode | process | encode | decode | . . .
    worker 2:           decode  |        | process | encode | . . .

Each joblib worker carries one picture at a time through all three stages, so memory is bounded by the number of
workers; a device belongs to one of them at a time.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import Queue
from threading import Event, Semaphore
from time import perf_counter
from typing import Literal, Protocol, TypeAlias, TypeVar

from hdrcli.errors import HdrError, OutOfMemoryError
from hdrcli.files import Job

Decoded = TypeVar("Decoded")
Processed = TypeVar("Processed")
Item = TypeVar("Item")
Made = TypeVar("Made")
Check: TypeAlias = Callable[[], None]


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


def go_on() -> None:
    """The check that never stops a run."""


class Stages(Protocol[Decoded, Processed]):
    """What happens to each job. A stage that raises HdrError or MemoryError makes that job fail, and no other."""

    def skipped(self, job: Job) -> list[Outcome]:
        """The outcomes of a job on which there is nothing to do, and an empty list for all others."""
        ...

    def decode(self, job: Job) -> Decoded:
        """Beside other jobs' stages."""
        ...

    def process(self, job: Job, decoded: Decoded, check: Check) -> Processed:
        """For one job of each device at a time. `check` is to be called often; it raises where the run is to stop."""
        ...

    def encode(self, job: Job, processed: Processed) -> list[Outcome]:
        """Beside other jobs' stages; one outcome for each output."""
        ...


def run(
    jobs: Sequence[Job],
    stages: Sequence[Stages[Decoded, Processed]],
    *,
    workers: int,
    stopped: Event,
    enough: Callable[[int], bool] = lambda failures: False,
) -> Generator[list[Outcome], None, None]:
    """Carries every job through the stages and yields the outcomes of each in the order of the jobs.

    stages: of each device, alike but for the device on which they process; one that is free takes the next picture.
    Once `stopped` is set, from outside, by leaving early or when there are `enough` failed jobs, no job begins, what is
    before or on the device is dropped at its next check, and what is past it is finished. Exceptions other than
    HdrError and MemoryError are bugs and propagate.
    """
    free, failed = waiting(stages), list[Job]()

    def carry_one(job: Job) -> list[Outcome] | None:
        outcomes = carry(job, stages[0], free, stopped)
        if any(outcome.status == "failed" for outcome in outcomes or ()):
            failed.append(job)
            if enough(len(failed)):
                stopped.set()
        return outcomes

    yield from in_order(jobs, carry_one, workers=workers, stopped=stopped)


Free: TypeAlias = Queue[Stages[Decoded, Processed]]
"""The stages of the devices that are free."""


def waiting(stages: Sequence[Stages[Decoded, Processed]]) -> Free[Decoded, Processed]:
    """All stages, none of them taken."""
    free: Free[Decoded, Processed] = Queue()
    for of_device in stages:
        free.put(of_device)
    return free


@contextmanager
def _taken(free: Free[Decoded, Processed]) -> Iterator[Stages[Decoded, Processed]]:
    stages = free.get()
    try:
        yield stages
    finally:
        free.put(stages)


def carry(
    job: Job, stages: Stages[Decoded, Processed], free: Free[Decoded, Processed], stopped: Event
) -> list[Outcome] | None:
    """All stages of one job; its seconds leave out the wait for a device. None where the run was stopped."""

    def check() -> None:
        if stopped.is_set():
            raise _StoppedError

    start, waited = perf_counter(), 0.0
    try:
        if skipped := stages.skipped(job):
            return skipped
        decoded = stages.decode(job)
        queued = perf_counter()
        with _taken(free) as device:
            waited = perf_counter() - queued
            check()
            processed = device.process(job, decoded, check)
        outcomes = stages.encode(job, processed)
    except _StoppedError:
        return None
    except (HdrError, MemoryError) as error:
        if stopped.is_set():
            return None  # decoders are ended then, too
        outcomes = [failure(job, error)]
    seconds = perf_counter() - start - waited
    return [replace(outcome, seconds=seconds) for outcome in outcomes]


class _StoppedError(Exception):
    """The run is to stop."""


def failure(job: Job, error: HdrError | MemoryError) -> Outcome:
    """The outcome of a job that failed for that reason."""
    if not isinstance(error, HdrError):
        error = OutOfMemoryError("there is not enough memory for this picture", hint="use fewer --jobs")
    return Outcome(job=job, status="failed", error=error.message, hint=error.hint)
