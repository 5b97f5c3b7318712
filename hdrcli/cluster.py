"""A batch on other machines: every file is a task of a Dask or Ray cluster whose workers reach the same files.

    here     jobs ────▶ tasks of joblib                            outcomes, in the order of the jobs ────▶ reports
    worker               settings ──▶ one model, decoders: kept      ▲
                         task: decode, process, encode one file ─────┘

Settings travel to the workers and outcomes travel back; pictures and weights do not. The cluster redoes the files of a
worker that died; what such a worker had written, but not yet reported, is found there and comes back as skipped.
"""

import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

from hdrcli import __version__
from hdrcli.batch import Decoded, Free, Outcome, Processed, Stages, carry, failure, waiting
from hdrcli.errors import HdrError, UsageError, imported
from hdrcli.files import STREAM, Job
from hdrcli.remote import is_remote

_LOOK_EVERY = 0.1  # seconds between two looks for tasks that began as the run was stopped
_CONNECT = 10.0  # seconds
_AGAIN = 1  # times that a task is handed out anew: it may only have waited on a worker that another file ended
_EXTRA = "'hdrcli[cluster]'"

_LOADING, _NEVER = Lock(), Event()  # of a worker


class Cluster(NamedTuple):
    """Where tasks go. parallel: joblib's. drop: makes tasks that are not finished come back as None.

    workers: how many tasks run at once, as far as that is known.
    """

    parallel: Any
    drop: Callable[[], None]
    workers: int


def run(
    jobs: Sequence[Job], stages: Stages[Decoded, Processed], cluster: Cluster, *, stopped: Event
) -> Generator[list[Outcome], None, None]:
    """As `batch.run`, on the workers of a cluster.

    Once `stopped` is set, from outside or by leaving early, only what is finished is still reported.
    """
    from joblib import delayed  # late, as in `batch`

    if any(STREAM in (job.source, job.target) for job in jobs):
        raise UsageError("standard input and output are on this machine alone", hint="name files, or URLs")
    data, over = pickle.dumps(stages), Event()

    def stop() -> None:
        stopped.wait()
        while not over.wait(_LOOK_EVERY):
            cluster.drop()

    tasks = (delayed(_carry)(__version__, data, _absolute(job)) for job in jobs if not stopped.is_set())
    made = cluster.parallel(tasks)
    threading.Thread(target=stop, daemon=True).start()
    try:
        for job, found in zip(jobs, made, strict=False):  # there are fewer tasks than jobs in a run that is stopped
            if found is not None:
                yield _outcomes(job, found)
    except ImportError as error:
        raise HdrError(f"a worker lacks {error.name}", hint="install the same hdrcli on every machine") from error
    finally:
        stopped.set()
        deque(made, maxlen=0)  # lets joblib come to its end
        over.set()


def _outcomes(job: Job, found: list[Outcome] | Exception) -> list[Outcome]:
    """What became of a job, in the words of this machine; an exception is that of its last worker."""
    if isinstance(found, Exception):
        why = HdrError(f"every worker that was given this file died: {found}", hint="give workers more memory")
        return [failure(job, why)]
    return [replace(one, job=job._replace(target=job.target.with_name(one.job.target.name))) for one in found]


def _absolute(job: Job) -> Job:
    """The job for a process in another folder."""
    source, target = (path if is_remote(path) else Path.cwd() / path for path in (job.source, job.target))
    return Job(source, target)


def _carry(version: str, data: bytes, job: Job) -> list[Outcome]:
    """What a worker does."""
    try:
        if version != __version__:
            hint = "install the same on every machine"
            raise HdrError(f"a worker has hdrcli {__version__}, not {version}", hint=hint)
        with _LOADING:
            stages, free = _stages(data)
    except HdrError as error:
        return [failure(job, error)]
    outcomes = carry(job, stages, free, _NEVER)
    assert outcomes is not None, "nothing stops it"
    return outcomes


@lru_cache(maxsize=1)
def _stages(data: bytes) -> tuple[Stages[Any, Any], Free[Any, Any]]:
    stages: Stages[Any, Any] = pickle.loads(data)
    return stages, waiting([stages])


def _lasting(base: Any, *lost: type[Exception]) -> Any:
    """A backend of joblib for batches that outlive workers. lost: what a task ends with whose workers died.

    Such a task is handed out anew, and at last comes back as its exception, where joblib would end the whole run.
    """

    class Lasting(base):  # type: ignore[misc]
        supports_return_generator = True  # Ray's, too, which calls back as Dask's does

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._open: set[Callable[[object], None]] = set()

        def effective_n_jobs(self, n_jobs: int) -> int:
            """At least two: for one, joblib would do the work in this process."""
            return int(max(2, super().effective_n_jobs(n_jobs)))

        def submit(self, func: Callable[[], object], callback: Callable[[object], None]) -> Any:
            left = iter(range(_AGAIN))

            def answered(out: object) -> None:
                if not isinstance(out, lost):
                    self._close(callback, out)
                elif callback in self._open and next(left, None) is not None:
                    super(Lasting, self).submit(func, answered)
                else:
                    self._close(callback, [out])

            self._open.add(callback)
            return super().submit(func, answered)

        def drop(self) -> None:
            for callback in list(self._open):
                self._close(callback, [None])

        def _close(self, callback: Callable[[object], None], out: object) -> None:
            try:
                self._open.remove(callback)
            except KeyError:
                return  # it was dropped
            callback(out)

    return Lasting


@contextmanager
def _on(backend: Any, ahead: str, workers: int) -> Iterator[Cluster]:
    """ahead: how many tasks are handed out before others are done, in joblib's words."""
    from joblib import Parallel

    with Parallel(-1, backend, return_as="generator", pre_dispatch=ahead, batch_size=1) as parallel:
        yield Cluster(parallel, backend.drop, workers)


@contextmanager
def dask(scheduler: str) -> Iterator[Cluster]:
    """The cluster of the Dask scheduler at that address."""
    distributed = imported("distributed", "this backend", _EXTRA)
    from joblib._dask import DaskDistributedBackend

    class Answering(DaskDistributedBackend):  # type: ignore[misc]
        def submit(self, func: Callable[[], object], callback: Callable[[object], None]) -> Any:
            """Calls back for lost tasks, too: joblib's own puts their errors into futures that it never looks at."""

            def look(future: Any) -> None:
                if error := future.exception():
                    callback(error)

            future = super().submit(func, callback)
            future.add_done_callback(look)
            return future

    try:
        client = distributed.Client(scheduler, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        hint = "on one machine: dask scheduler; on each: dask worker ADDRESS"
        raise UsageError(f"there is no Dask scheduler at {scheduler}: {error}", hint=hint) from error
    with client:
        backend = _lasting(Answering, distributed.KilledWorker)(client=client, wait_for_workers_timeout=0)
        with _on(backend, "all", sum(client.nthreads().values())) as cluster:
            yield cluster


@contextmanager
def ray(address: str) -> Iterator[Cluster]:
    """The Ray cluster at that address, "auto" for the one that this machine belongs to."""
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray reports on standard output, which belongs to the data
    library = imported("ray", "this backend", _EXTRA)
    from ray.util.joblib.ray_backend import RayBackend
    from ray.util.multiprocessing.pool import ResultThread

    try:
        library.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, RuntimeError) as error:
        hint = "on one machine: ray start --head; on each: ray start --address ADDRESS"
        raise UsageError(f"there is no Ray cluster at {address}: {error}", hint=hint) from error
    try:
        workers = int(library.cluster_resources().get("CPU", 0))
        if workers < 2:
            hint = "add machines, or leave --backend out"
            raise UsageError(f"the Ray cluster has CPUs: {workers}; its pools need two", hint=hint)
        lost = (library.exceptions.RayActorError, library.exceptions.OutOfMemoryError)
        actors = {"num_cpus": 1, "max_restarts": -1, "max_task_retries": 1}
        with _on(_lasting(RayBackend, *lost)(ray_remote_args=actors), "2 * n_jobs", workers) as cluster:
            yield cluster
    finally:
        for thread in threading.enumerate():
            if isinstance(thread, ResultThread):
                thread.join()  # which ends with its actor; later it would start a cluster of its own to ask for that
        library.shutdown()
