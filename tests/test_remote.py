"""URLs as inputs and outputs: a store in memory and a web server on this machine, beside local files."""

import json
import pickle
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from program import plan
from standins import save_standin
from typer.testing import CliRunner
from webserver import serving

from hdrcli import cards, codecs, files, remote
from hdrcli.cli.main import app
from hdrcli.errors import MissingExtraError, ReadError, UsageError, WriteError
from hdrcli.files import Job
from hdrcli.image import Image, Transfer

STORE = MemoryFileSystem()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights under the name of the default one."""
    folder = tmp_path_factory.mktemp("models")
    save_standin("lumen", folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(models))
    monkeypatch.chdir(tmp_path)
    STORE.store.clear()
    STORE.pseudo_dirs[:] = [""]
    yield
    assert not [name for name in STORE.store if ".hdrcli-part-" in name]


class Quiet(SimpleHTTPRequestHandler):
    """Serves the current folder and forbids what is named so."""

    def do_GET(self) -> None:
        if "forbidden" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(here: None) -> Iterator[str]:
    """The address of a web server that shows the current folder."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Quiet)) as address:
        yield address


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).uniform(0, 1.2, (40, 56, 3)).astype(np.float32).clip(0, 1)
    codecs.write(Image(pixels, Transfer.SRGB), Path("made.png"), "png")
    data = Path("made.png").read_bytes()
    Path("made.png").unlink()
    return data


def expand(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(app, ["expand", "--json", *arguments], catch_exceptions=False)
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_tree_of_a_remote_folder_is_kept() -> None:
    for name in ("/in/a.png", "/in/b/c.png", "/in/.hidden/d.png", "/in/notes.txt", "/in/a_hdr.png"):
        STORE.pipe(name, b"")
    assert plan("memory://in") == {"memory:///in/a.png": "memory:///in/a_hdr.exr"}
    deep = plan("memory://in/", out="here", recursive=True)
    assert deep == {"memory:///in/a.png": "here/a.exr", "memory:///in/b/c.png": "here/b/c.exr"}
    there = plan("memory:///in", out="memory://out", recursive=True)
    assert list(there.values()) == ["memory:///out/a.exr", "memory:///out/b/c.exr"]
    assert plan("memory://in/*.png", out="memory://in/")["memory:///in/a.png"] == "memory:///in/a_hdr.exr"


def test_local_files_go_to_a_store_and_urls_of_files_are_local() -> None:
    Path("a.png").touch()
    assert plan("a.png", out="memory://out/") == {"a.png": "memory:///out/a.exr"}
    assert plan(Path("a.png").absolute().as_uri()) == {str(Path.cwd() / "a.png"): str(Path.cwd() / "a_hdr.exr")}


def test_collisions_are_refused_whatever_the_spelling() -> None:
    STORE.pipe("/in/a.png", b"")
    with pytest.raises(UsageError, match="both be written"):
        plan("memory://in/a.png", "memory:///in/b/../a.png", out="memory://out/x.exr/")
    with pytest.raises(UsageError, match="one of the inputs"):
        plan("memory://in/x/a.exr", "memory:///in/a.png", out="memory:///in/x/")


def test_web_servers_only_give() -> None:
    assert plan("http://127.0.0.1:9/a.png", out="x") == {"http://127.0.0.1:9/a.png": "x/a.exr"}
    with pytest.raises(UsageError, match="beside"):
        plan("http://127.0.0.1:9/a.png")
    with pytest.raises(UsageError, match="nothing can be written"):
        plan("a.png", out="https://127.0.0.1:9/x")


def test_a_failed_input_can_be_named_so_that_it_leads_to_the_same_output() -> None:
    STORE.pipe("/in/b/c.png", b"")
    (job,) = files.plan(
        ["memory://in"], out="o", recursive=True, suffix="_hdr", extension=".exr", accepts=lambda path: True
    )
    again = plan(files.listed(job), out="o")
    assert again == {"memory:///in/b/c.png": "o/b/c.exr"}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no URL"):
        remote.place("nowhere://a/b")
    with pytest.raises(ReadError, match="does not exist"):
        files.openable(remote.place("memory://missing.png"))
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(MissingExtraError, match="s3://"):
        remote.place("s3://bucket/a.png")
    assert remote.place("C:/a.png") == Path("C:/a.png")


def rename(store: MemoryFileSystem, old: str, new: str) -> None:
    store.store[new] = store.store.pop(old)


@pytest.mark.parametrize("moves", [False, True], ids=["object store", "file system"])
def test_a_write_is_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, moves: bool) -> None:
    if moves:
        monkeypatch.setattr(MemoryFileSystem, "mv", rename)
    target = remote.place("memory://out/[x]/a.exr")
    with files.atomic_write(target) as part:
        part.write_bytes(b"first")
        assert not STORE.store
    assert STORE.cat_file("/out/[x]/a.exr") == b"first"
    with pytest.raises(ZeroDivisionError), files.atomic_write(target) as part:
        part.write_bytes(b"second")
        raise ZeroDivisionError

    def full(*_: object) -> None:
        raise OSError("the store is full")

    monkeypatch.setattr(MemoryFileSystem, "mv" if moves else "pipe_file", full)
    with pytest.raises(WriteError, match="full"), files.atomic_write(target) as part:
        part.write_bytes(b"second")
    assert list(STORE.store) == ["/out/[x]/a.exr"]
    assert STORE.cat_file("/out/[x]/a.exr") == b"first"


def test_a_name_taken_by_a_folder_is_refused() -> None:
    STORE.pipe("/out/a.exr/b", b"")
    with pytest.raises(WriteError, match="folder"), files.atomic_write(remote.place("memory://out/a.exr")):
        pass


def test_what_killed_runs_left_is_swept_once_it_is_old() -> None:
    for name in ("old", "new"):
        STORE.pipe(f"/out/.hdrcli-part-{name}", b"")
    STORE.store["/out/.hdrcli-part-old"].modified = datetime.now(UTC) - timedelta(days=2)
    files.sweep([remote.place("memory://out")])
    assert list(STORE.store) == ["/out/.hdrcli-part-new"]
    STORE.store.clear()


def test_expand_from_store_to_store_is_as_from_disk_to_disk() -> None:
    for name in ("a", "b"):
        data = picture(len(name))
        STORE.pipe(f"/in/{name}.png", data)
        Path("in").mkdir(exist_ok=True)
        Path(f"in/{name}.png").write_bytes(data)
    STORE.pipe("/in/broken.png", b"\x89PNG")
    Path("in/broken.png").write_bytes(b"\x89PNG")
    code, there = expand("memory://in", "-o", "memory://out", "--preview")
    assert (code, expand("in", "-o", "out", "--preview")[0]) == (1, 1)
    assert [record["status"] for record in there] == ["written", "written", "failed"]
    names = sorted(path.name for path in Path("out").iterdir())
    assert sorted(STORE.store) == sorted(["/in/a.png", "/in/b.png", "/in/broken.png", *(f"/out/{n}" for n in names)])
    for name in names:
        assert STORE.cat(f"/out/{name}") == Path("out", name).read_bytes(), name
    _, again = expand("memory://in", "-o", "memory://out", "--preview")
    assert [record["status"] for record in again] == ["skipped", "skipped", "failed"]


def test_expand_from_a_web_server(server: str) -> None:
    Path("a.png").write_bytes(picture(1))
    Path("forbidden.png").write_bytes(picture(1))
    code, records = expand(
        f"{server}/missing.png", f"{server}/forbidden.png", "http://127.0.0.1:9/x.png", f"{server}/a.png", "-o", "out"
    )
    assert code == 1
    assert [record["status"] for record in records] == ["failed", "failed", "failed", "written"]
    assert "does not exist" in records[0]["error"]
    assert "403" in records[1]["error"]
    assert expand("a.png", "-o", "local")[0] == 0
    assert Path("out/a.exr").read_bytes() == Path("local/a.exr").read_bytes()


def test_jobs_of_urls_can_travel() -> None:
    job = Job(remote.place("memory://in/a.png"), remote.place("memory://out/a.exr"))
    assert pickle.loads(pickle.dumps(job)) == job
