"""The pipeline: order, bounded memory, failures that stay one file's, interruption."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from hdrcli import batch
from hdrcli.batch import Check, Outcome
from hdrcli.errors import HdrError
from hdrcli.files import Job

JOBS = [Job(Path(f"{n}.jpg"), Path(f"{n}.exr")) for n in range(12)]


def written(job: Job, value: int) -> Outcome:
    return Outcome(job=job, status="written", width=value)


@dataclass
class Functions:
    """Stages made of plain functions."""

    decoded: Callable[[Job], int]
    processed: Callable[[Job, int], int]
    encoded: Callable[[Job, int], Outcome]
    skip: Callable[[Job], bool] = lambda job: False

    def skipped(self, job: Job) -> list[Outcome]:
        return [Outcome(job=job, status="skipped")] if self.skip(job) else []

    def decode(self, job: Job) -> int:
        return self.decoded(job)

    def process(self, job: Job, decoded: int, check: Check) -> int:
        return self.processed(job, decoded)

    def encode(self, job: Job, processed: int) -> list[Outcome]:
        return [self.encoded(job, processed)]


def run(jobs: list[Job], *functions: Any, workers: int, stopped: Event | None = None, **more: Any) -> Iterator[Outcome]:
    for outcomes in batch.run(jobs, [Functions(*functions, **more)], workers=workers, stopped=stopped or Event()):
        yield from outcomes


def number(job: Job) -> int:
    return int(job.source.stem)


def failing_on(numbers: set[int], error: BaseException) -> Callable[..., int]:
    def stage(job: Job, value: int = 0) -> int:
        if number(job) in numbers:
            raise error
        return number(job)

    return stage


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_outcomes_come_in_the_order_of_the_jobs(workers: int) -> None:
    outcomes = list(run(JOBS, number, lambda job, value: value + 100, written, workers=workers))
    assert [outcome.job for outcome in outcomes] == JOBS
    assert [outcome.width for outcome in outcomes] == [100 + n for n in range(12)]
    assert all(outcome.seconds >= 0 for outcome in outcomes)


def test_the_device_belongs_to_one_picture_at_a_time_and_files_do_not() -> None:
    lock = threading.Lock()
    inside, most = {"process": 0, "decode": 0}, {"process": 0, "decode": 0}

    def enter(stage: str) -> None:
        with lock:
            inside[stage] += 1
            most[stage] = max(most[stage], inside[stage])
        time.sleep(0.01)
        with lock:
            inside[stage] -= 1

    def decode(job: Job) -> int:
        enter("decode")
        return 0

    def process(job: Job, value: int) -> int:
        enter("process")
        return 0

    list(run(JOBS, decode, process, written, workers=3))
    assert most["process"] == 1, f"{most['process']} pictures were on the device at once"
    assert most["decode"] > 1, "files were read one after another"


@pytest.mark.parametrize("stage", ["decode", "process", "encode"])
def test_a_bad_file_fails_alone(stage: str) -> None:
    bad = failing_on({3, 7}, HdrError("torn", hint="mend it"))
    decode = bad if stage == "decode" else number
    process = bad if stage == "process" else (lambda job, value: value)

    def encode(job: Job, value: int) -> Outcome:
        return written(job, bad(job) if stage == "encode" else value)

    outcomes = list(run(JOBS, decode, process, encode, workers=3))
    assert [number(outcome.job) for outcome in outcomes if outcome.status == "failed"] == [3, 7]
    assert (outcomes[3].error, outcomes[3].hint) == ("torn", "mend it")
    assert sum(outcome.status == "written" for outcome in outcomes) == 10


def test_too_little_memory_fails_the_file() -> None:
    outcomes = list(run(JOBS, failing_on({0}, MemoryError()), lambda job, value: value, written, workers=2))
    assert outcomes[0].status == "failed"
    assert "memory" in outcomes[0].error


@pytest.mark.parametrize("stage", ["decode", "process"])
def test_a_bug_is_loud(stage: str) -> None:
    bug = failing_on({5}, ZeroDivisionError("bug"))
    decode, process = (bug, lambda job, value: value) if stage == "decode" else (number, bug)
    with pytest.raises(ZeroDivisionError):
        list(run(JOBS, decode, process, written, workers=2))


def test_finished_files_are_not_touched() -> None:
    touched = []

    def decode(job: Job) -> int:
        touched.append(number(job))
        return 0

    outcomes = list(
        run(JOBS, decode, lambda job, value: value, written, workers=2, skip=lambda job: number(job) % 2 == 0)
    )
    assert [outcome.status for outcome in outcomes] == ["skipped", "written"] * 6
    assert sorted(touched) == [1, 3, 5, 7, 9, 11]


def test_what_waits_is_bounded() -> None:
    decoded, finished, most = 0, 0, 0
    lock = threading.Lock()

    def decode(job: Job) -> int:
        nonlocal decoded
        with lock:
            decoded += 1
        return 0

    def process(job: Job, value: int) -> int:
        nonlocal most
        with lock:
            most = max(most, decoded - finished)
        return 0

    def encode(job: Job, value: int) -> Outcome:
        nonlocal finished
        with lock:
            finished += 1
        return written(job, value)

    jobs = [Job(Path(f"{n}.jpg"), Path(f"{n}.exr")) for n in range(60)]
    list(run(jobs, decode, process, encode, workers=2))
    assert most <= 2, f"{most} pictures were in memory with two workers"


def test_interruption_finishes_what_is_past_the_device_and_drops_the_rest() -> None:
    encoded: list[int] = []
    begun: list[int] = []

    def process(job: Job, value: int) -> int:
        begun.append(value)
        return value

    def encode(job: Job, value: int) -> Outcome:
        time.sleep(0.05)
        encoded.append(value)
        return written(job, value)

    outcomes = run(JOBS, number, process, encode, workers=2)
    assert next(outcomes).width == 0
    outcomes.close()
    assert sorted(encoded) == sorted(begun), "a picture that had been processed was lost"
    count = len(begun)
    time.sleep(0.2)
    assert len(begun) == count < len(JOBS), "work went on after the end"


def test_a_run_that_is_stopped_tells_all_that_was_finished() -> None:
    stopped = Event()
    encoded: list[int] = []

    def process(job: Job, value: int) -> int:
        if value == 4:
            stopped.set()
        return value

    def encode(job: Job, value: int) -> Outcome:
        encoded.append(value)
        return written(job, value)

    told = [outcome.width for outcome in run(JOBS, number, process, encode, workers=3, stopped=stopped)]
    assert told == sorted(encoded)
    assert 4 in told
    assert len(told) < len(JOBS)


def test_a_picture_is_dropped_at_its_next_check_and_one_that_fails_then_is_not_told() -> None:
    stopped = Event()
    begun, tiles = Event(), []

    class Stages(Functions):
        def process(self, job: Job, decoded: int, check: Check) -> int:
            for tile in range(100):
                tiles.append(tile)
                check()
                begun.set()
                stopped.wait()
            return decoded

    def decode(job: Job) -> int:
        if number(job) > 0:
            begun.wait()
            stopped.set()
            raise HdrError("its decoder was ended")
        return 0

    stages = Stages(decode, number, written)
    assert list(batch.run(JOBS[:2], [stages], workers=2, stopped=stopped)) == []
    assert tiles == [0, 1]


def test_each_device_processes_beside_the_others_and_one_picture_at_a_time() -> None:
    """Two devices meet at a barrier, which neither could alone; none is given a second picture before."""
    meeting = threading.Barrier(2, timeout=10)
    busy: list[str] = []

    def processing(device: str) -> Callable[[Job, int], int]:
        def process(job: Job, value: int) -> int:
            assert device not in busy, f"{device} was given two pictures at a time"
            busy.append(device)
            meeting.wait()
            busy.remove(device)
            return value

        return process

    devices = [Functions(number, processing(name), written) for name in ("first", "second")]
    jobs = [Job(Path(f"{n}.jpg"), Path(f"{n}.exr")) for n in range(10)]
    outcomes = [one for of_job in batch.run(jobs, devices, workers=4, stopped=Event()) for one in of_job]
    assert [(outcome.width, outcome.error) for outcome in outcomes] == [(n, "") for n in range(10)]
