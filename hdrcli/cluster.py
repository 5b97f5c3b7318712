"""A batch on other machines: every file is a task of a Dask or Ray cluster whose workers reach the same files.

    here     jobs ────▶ tasks                                      outcomes, in the order of the jobs ────▶ reports
    worker               settings ──▶ one model, decoders: kept      ▲
                         task: decode, process, encode one file ─────┘

Settings travel to the workers and outcomes travel back; pictures and weights do not. The cluster redoes the files of a
worker that died; what such a worker had written, but not yet reported, is found there and comes back as skipped.
joblib's own backends for these clusters are not used: they wait for ever for a file that ends its workers.
"""

import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

from hdrcli import __version__
from hdrcli.batch import Decoded, Outcome, Processed, Stages, carry, failure
from hdrcli.errors import HdrError, MissingExtraError, UsageError
from hdrcli.files import STREAM, Job
from hdrcli.remote import is_remote

_LOOK_EVERY = 0.1  # seconds between two looks at whether the run is to stop
_CONNECT = 10.0  # seconds
_RETRIES = 3  # of a file whose worker died

_LOADING, _DEVICE, _NEVER = Lock(), Lock(), Event()  # of a worker


class Cluster(NamedTuple):
    """Where tasks go. submit: a function and its arguments to a future. lost: what a future raises whose workers died.

    workers: how many tasks run at once, as far as that is known.
    """

    submit: Callable[..., "Future[list[Outcome]]"]
    lost: tuple[type[BaseException], ...]
    workers: int


def run(
    jobs: Sequence[Job], stages: Stages[Decoded, Processed], cluster: Cluster, *, stopped: Event
) -> Generator[list[Outcome], None, None]:
    """As `batch.run`, on the workers of a cluster.

    Once `stopped` is set, only what is finished is still reported; workers finish what they have begun.
    """
    if any(STREAM in (job.source, job.target) for job in jobs):
        raise UsageError("standard input and output are on this machine alone", hint="name files, or URLs")
    data = pickle.dumps(stages)

    def submitted(job: Job) -> "Future[list[Outcome]]":
        return cluster.submit(_carry, __version__, data, _absolute(job))

    def settled(future: "Future[list[Outcome]]") -> bool:
        while not (future.done() or stopped.is_set()):
            wait([future], timeout=_LOOK_EVERY)
        return future.done()

    futures = [submitted(job) for job in jobs]
    for job, future in zip(jobs, futures, strict=True):
        if settled(future) and isinstance(future.exception(), cluster.lost):
            future = submitted(job)  # it may only have waited on a worker that another file ended
        if settled(future):
            yield _outcomes(job, future, cluster.lost)


def _outcomes(job: Job, future: "Future[list[Outcome]]", lost: tuple[type[BaseException], ...]) -> list[Outcome]:
    """What became of a job, in the words of this machine."""
    try:
        found = future.result()
    except HdrError as error:
        return [failure(job, error)]
    except lost as error:
        why = HdrError(f"every worker that was given this file died: {error}", hint="give workers more memory")
        return [failure(job, why)]
    except ImportError as error:
        raise HdrError(f"a worker lacks {error.name}", hint="install the same hdrcli on every machine") from error
    return [replace(one, job=job._replace(target=job.target.with_name(one.job.target.name))) for one in found]


def _absolute(job: Job) -> Job:
    """The job for a process in another folder."""
    source, target = (path if is_remote(path) else Path.cwd() / path for path in (job.source, job.target))
    return Job(source, target)


def _carry(version: str, data: bytes, job: Job) -> list[Outcome]:
    """What a worker does."""
    if version != __version__:
        raise HdrError(f"a worker has hdrcli {__version__}, not {version}", hint="install the same on every machine")
    with _LOADING:
        stages = _stages(data)
    outcomes = carry(job, stages, _DEVICE, _NEVER)
    assert outcomes is not None, "nothing stops it"
    return outcomes


@lru_cache(maxsize=1)
def _stages(data: bytes) -> Stages[Any, Any]:
    stages: Stages[Any, Any] = pickle.loads(data)
    return stages


@contextmanager
def dask(scheduler: str) -> Iterator[Cluster]:
    """The cluster of the Dask scheduler at that address."""
    distributed = _imported("distributed", "'hdrcli[cluster]'")
    try:
        client = distributed.Client(scheduler, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        hint = "on one machine: dask scheduler; on each: dask worker ADDRESS"
        raise UsageError(f"there is no Dask scheduler at {scheduler}: {error}", hint=hint) from error
    with client:
        submit = client.get_executor(pure=False).submit
        yield Cluster(submit, (distributed.KilledWorker,), sum(client.nthreads().values()))


@contextmanager
def ray(address: str) -> Iterator[Cluster]:
    """The Ray cluster at that address, "auto" for the one that this machine belongs to."""
    library = _imported("ray", "ray")
    try:
        library.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, RuntimeError) as error:
        hint = "on one machine: ray start --head; on each: ray start --address ADDRESS"
        raise UsageError(f"there is no Ray cluster at {address}: {error}", hint=hint) from error
    task = library.remote(num_cpus=1, max_retries=_RETRIES)

    def submit(function: Callable[..., list[Outcome]], *arguments: object) -> "Future[list[Outcome]]":
        future: Future[list[Outcome]] = task(function).remote(*arguments).future()
        return future

    errors = library.exceptions
    lost = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)
    try:
        yield Cluster(submit, lost, int(library.cluster_resources().get("CPU", 0)))
    finally:
        library.shutdown()


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this backend needs {error.name}, which is not installed", hint=f"pip install {package}"
        ) from error
