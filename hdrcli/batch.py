"""Many pictures, one device: files are decoded ahead and encoded behind the one loop that uses the device.

    decode (threads) --> process (the calling thread) --> encode (threads)

At most `workers` pictures wait on either side, so memory is bounded whatever the length of the list. (joblib's
generators are no help here: they work ahead of a slow consumer without a bound.)
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, TypeVar

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


class _Ticket:
    """One job on its way, the result of its latest stage, and the seconds spent on it so far."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.seconds = 0.0
        self.result: Future[Any] = Future()

    def timed(self, stage: Callable[..., Any], *values: Any) -> Any:
        start = perf_counter()
        try:
            return stage(self.job, *values)
        finally:
            self.seconds += perf_counter() - start


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

    `process` runs in the calling thread, one job at a time; `decode` and `encode` run in threads. A job for which
    `skip` holds is not touched. HdrError and MemoryError make a job fail while the others go on; any other exception
    is a bug and propagates. On leaving early, as by Ctrl-C, what waits is dropped and encodes under way are finished.
    """
    readers, writers = ThreadPoolExecutor(workers, "decode"), ThreadPoolExecutor(workers, "encode")
    waiting = deque(_Ticket(job) for job in jobs)
    reading: deque[_Ticket] = deque()
    writing: deque[_Ticket] = deque()
    try:
        while waiting or reading:
            while waiting and len(reading) < workers:
                ticket = waiting.popleft()
                if skip(ticket.job):
                    ticket.result.set_result(Outcome(job=ticket.job, status="skipped"))
                else:
                    ticket.result = readers.submit(ticket.timed, decode)
                reading.append(ticket)
            ticket = reading.popleft()
            _advance(ticket, process, encode, writers)
            writing.append(ticket)
            while writing and (writing[0].result.done() or len(writing) > workers):
                yield _outcome(writing.popleft())
        while writing:
            yield _outcome(writing.popleft())
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown(cancel_futures=True)


def _advance(
    ticket: _Ticket,
    process: Callable[[Job, Decoded], Processed],
    encode: Callable[[Job, Processed], Outcome],
    writers: ThreadPoolExecutor,
) -> None:
    """Takes a decoded picture through the device and on to the writers; a failed or skipped one stays as it is."""
    try:
        decoded = ticket.result.result()
        if isinstance(decoded, Outcome):
            return
        processed = ticket.timed(process, decoded)
    except (HdrError, MemoryError) as error:
        ticket.result = Future()
        ticket.result.set_exception(error)
    else:
        ticket.result = writers.submit(ticket.timed, encode, processed)


def _outcome(ticket: _Ticket) -> Outcome:
    try:
        outcome: Outcome = ticket.result.result()
        return replace(outcome, seconds=ticket.seconds)
    except HdrError as error:
        failure = error
    except MemoryError:
        failure = OutOfMemoryError("there is not enough memory for this picture", hint="use fewer --jobs")
    return Outcome(job=ticket.job, status="failed", seconds=ticket.seconds, error=failure.message, hint=failure.hint)
