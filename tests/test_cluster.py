"""A batch on a cluster: as on this machine, whatever becomes of the workers. Dask runs here, with two processes."""

import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from distributed import Client
from joblib._parallel_backends import ThreadingBackend
from program import dask_workers
from standins import save_standin
from typer.testing import CliRunner

from hdrcli import cards, cluster, codecs, zoo
from hdrcli.batch import Check, Outcome
from hdrcli.cli.main import app
from hdrcli.cluster import Cluster
from hdrcli.codecs import WriteOptions
from hdrcli.errors import HdrError, MissingExtraError, UsageError, WeightsError
from hdrcli.files import STREAM, Job
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.isolation import Decoders
from hdrcli.tasks.convert import Conversion
from hdrcli.tasks.expand import Expansion, Feed
from hdrcli.tasks.sequence import steady


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny model with random weights under the name of the default one, for this process and its children."""
    folder = tmp_path_factory.mktemp("models")
    save_standin("lumen", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cards.FOLDER_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def dask(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The scheduler of two worker processes of one thread, replaced when they die; a file may end two of them."""
    folder = tmp_path_factory.mktemp("dask")
    settings = {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        "PYTHONPATH": str(Path(__file__).parent),
        "XDG_CACHE_HOME": str(folder),
    }
    with dask_workers(2, folder, settings) as address:
        yield address


def worker_processes(scheduler: str) -> set[int]:
    with Client(scheduler, set_as_default=False) as client:
        return set(client.run(os.getpid).values())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def threads() -> Iterator[Cluster]:
    """What a cluster looks like from here, in this process."""
    with cluster._on(cluster._lasting(ThreadingBackend)(), "all", 2) as found:
        yield found
    cluster._stages.cache_clear()  # and with it the decoders


def write_pictures(number: int) -> list[Job]:
    """Pictures in the folder `in`, and the jobs that expand them into `out`; names are relative."""
    Path("in").mkdir()
    for seed in range(number):
        pixels = np.random.default_rng(seed).uniform(0, 1.2, (96, 128, 3)).astype(np.float32).clip(0, 1)
        codecs.write(Image(pixels, Transfer.SRGB), Path(f"in/{seed:02}.png"), "png")
    return [Job(Path(f"in/{seed:02}.png"), Path(f"out/{seed:02}.exr")) for seed in range(number)]


def conversion(overwrite: bool = False) -> Conversion:
    way = Expansion(model=zoo.load("lumen"), compute=Compute(precision="fp32"))
    return Conversion(way=way, decoders=Decoders(), formats=["exr"], options=WriteOptions(), overwrite=overwrite)


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def expand(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(app, ["expand", "--json", *arguments], catch_exceptions=False)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return done.exit_code, [{key: value for key, value in one.items() if key != "seconds"} for one in records]


def test_a_batch_on_dask_is_as_on_this_machine(dask: str) -> None:
    write_pictures(4)
    Path("in/broken.png").write_bytes(b"\x89PNG")
    there = ["in", "--backend", "dask", "--scheduler", dask, "-o", "out", "--preview"]
    code, records = expand(*there)
    assert code == 1
    assert [record["status"] for record in records] == ["written"] * 4 + ["failed"]
    on_dask = contents("out")
    Path("out").rename("on_dask")
    assert expand("in", "-o", "out", "--preview") == (code, records)
    assert contents("out") == on_dask
    assert len(on_dask) == 8
    assert [record["status"] for record in expand(*there)[1]] == ["skipped"] * 4 + ["failed"]


def test_a_killed_worker_loses_nothing(dask: str) -> None:
    jobs = write_pictures(24)
    victim = min(worker_processes(dask))
    with cluster.dask(dask) as workers:
        outcomes = cluster.run(jobs, conversion(), workers, stopped=Event())
        seen = next(outcomes)
        assert len(contents("out")) < len(jobs), "the batch was over before a worker could be killed"
        os.kill(victim, signal.SIGKILL)
        for found in outcomes:
            seen += found
    assert victim not in worker_processes(dask)
    assert [outcome.job for outcome in seen] == jobs
    assert {outcome.status for outcome in seen} <= {"written", "skipped"}, seen
    on_dask = {name: data for name, data in contents("out").items() if not name.startswith(".hdrcli-part-")}
    Path("out").rename("on_dask")
    expand("in", "-o", "out")
    assert contents("out") == on_dask


class Deadly(Conversion):
    """A conversion in which one picture ends its process."""

    def process(self, job: Job, decoded: Any, check: Check) -> Any:
        if job.source.stem == "00":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(job, decoded, check)


def test_a_file_that_ends_every_worker_fails_and_the_others_do_not(dask: str) -> None:
    jobs = write_pictures(4)
    plain = conversion()
    deadly = Deadly(way=plain.way, decoders=plain.decoders, formats=plain.formats, options=plain.options)
    with cluster.dask(dask) as workers:
        seen = [outcome for found in cluster.run(jobs, deadly, workers, stopped=Event()) for outcome in found]
    assert [outcome.job for outcome in seen] == jobs
    assert seen[0].status == "failed"
    assert "died" in seen[0].error
    assert {outcome.status for outcome in seen[1:]} <= {"written", "skipped"}


def test_outcomes_speak_of_the_names_that_were_given(threads: Cluster) -> None:
    jobs = write_pictures(2)
    both = replace(conversion(), formats=["exr", "hdr"])
    seen = list(cluster.run(jobs, both, threads, stopped=Event()))
    assert [outcome.job.target for outcome in seen[1]] == [Path("out/01.exr"), Path("out/01.hdr")]
    assert all(outcome.job.source == Path("in/01.png") for outcome in seen[1])


def test_each_worker_opens_the_model_once(threads: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = write_pictures(6)
    settings = replace(conversion(), options=WriteOptions(half=False))
    opened = []
    open_card = zoo.open_card
    monkeypatch.setattr(zoo, "open_card", lambda card: opened.append(card) or open_card(card))
    assert len(list(cluster.run(jobs, settings, threads, stopped=Event()))) == 6
    assert len(opened) == 1
    assert len(pickle.dumps(settings)) < 10_000, "weights travel"


def test_a_stopped_run_reports_what_is_finished(threads: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(Path(f"{name}.png"), Path(f"{name}.exr")) for name in "abc"]
    stopped, held = Event(), Event()

    def work(version: str, data: bytes, job: Job) -> list[Outcome]:
        if job.source.stem == "b":
            stopped.set()
        else:
            held.wait()
        return [Outcome(job=job, status="written")]

    def drop() -> None:
        if threads.parallel.n_completed_tasks:
            threads.drop()

    monkeypatch.setattr(cluster, "_carry", work)
    seen = list(cluster.run(jobs, conversion(), threads._replace(drop=drop), stopped=stopped))
    assert [[outcome.job for outcome in found] for found in seen] == [jobs[1:2]]
    held.set()


def test_a_lost_file_is_a_failure_and_a_bug_is_loud(threads: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_out = []

    class Losing(ThreadingBackend):
        def submit(self, func: Any, callback: Any) -> None:
            handed_out.append(func)
            callback(ZeroDivisionError("2 deaths"))

    job = Job(Path("a.png"), Path("a.exr"))
    with cluster._on(cluster._lasting(Losing, ZeroDivisionError)(), "all", 2) as losing:
        (found,) = cluster.run([job], conversion(), losing, stopped=Event())
    assert (found[0].job, found[0].status) == (job, "failed")
    assert "2 deaths" in found[0].error
    assert len(handed_out) == 2

    def opened(error: Exception) -> list[list[Outcome]]:
        def fail(data: bytes) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(cluster, "_stages", fail)
            return list(cluster.run([job], conversion(), threads, stopped=Event()))

    (found,) = opened(HdrError("other weights"))
    assert (found[0].job, found[0].status) == (job, "failed")
    with pytest.raises(KeyError):
        opened(KeyError())
    with pytest.raises(HdrError, match="a worker lacks hdrcli"):
        opened(ModuleNotFoundError("No module named 'hdrcli'", name="hdrcli"))
    (outcome,) = cluster._carry("0.0", b"", job)
    assert "not 0.0" in outcome.error


def test_weights_stay_where_they_are_and_must_be_the_same(models: Path) -> None:
    model = zoo.load("lumen")
    again = pickle.loads(pickle.dumps(model))
    assert again.card == model.card
    kind, (name, _) = model.__reduce__()
    with pytest.raises(WeightsError, match="not the same"):
        kind(name, "0" * 64)


def test_a_clip_is_held_together_on_workers_too() -> None:
    model = zoo.load("lumen")
    frames = [np.full((64, 64, 3), level, np.float32) for level in (0.3, 0.6)]
    held = steady(model, [Feed(Image(frame, Transfer.SRGB), 1.0, 1.0) for frame in frames])
    again = pickle.loads(pickle.dumps(held))
    assert again.network.context.keys() == held.network.context.keys()
    for name, value in held.network.context.items():
        assert (again.network.context[name] == value).all()


@pytest.mark.parametrize(
    "options",
    [
        ["--backend", "dask"],
        ["--scheduler", "tcp://127.0.0.1:1"],
        ["--address", "auto", "--backend", "dask", "--scheduler", "tcp://127.0.0.1:1"],
        ["--jobs", "2", "--backend", "ray"],
        ["--backend", "dask", "--scheduler", "tcp://127.0.0.1:1"],
        ["--backend", "dask", "--scheduler", "nowhere"],
    ],
    ids=" ".join,
)
def test_what_does_not_belong_together_is_refused(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT", 0.2)
    write_pictures(1)
    with pytest.raises(UsageError):
        expand("in", *options)


def test_streams_do_not_travel_and_extras_are_named(threads: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="this machine alone"):
        list(cluster.run([Job(STREAM, STREAM)], conversion(), threads, stopped=Event()))
    for backend, module in ((cluster.dask, "distributed"), (cluster.ray, "ray")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=module), backend("auto"):
            pass
