"""The command line called as its users do, from a folder of its own with tiny models, and files to give to it."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from standins import save_standin

from hdrcli import cards, codecs, files, remote
from hdrcli.cli import main as entry
from hdrcli.image import Image, Transfer


class Done(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.decode().splitlines()]


class Stream(io.TextIOWrapper):
    """A standard stream in memory, with the bytes below it."""

    def __init__(self, data: bytes = b"", errors: str = "strict") -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", errors=errors, write_through=True)

    def bytes(self) -> bytes:
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models with random weights under the names of the default ones."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("lumen", "lumenraw"):
        save_standin(name, folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(models))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    left = list(tmp_path.rglob(".hdrcli-part-*"))
    assert not left, f"temporary files were left behind: {left}"


@pytest.fixture
def hdr(monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: str, stdin: bytes = b"", terminal: bool = False) -> Done:
        streams = {"stdin": Stream(stdin), "stdout": Stream(), "stderr": Stream(errors="backslashreplace")}
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        if terminal:
            monkeypatch.setattr(streams["stdin"], "isatty", lambda: True)
        monkeypatch.setattr(sys, "argv", ["hdr", *arguments])
        monkeypatch.setattr("gc.set_threshold", lambda *_: None)  # this process is not the command's own
        code = 0
        try:
            entry.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, streams["stdout"].bytes(), streams["stderr"].bytes().decode())

    return call


def plan(*inputs: str, out: str | None = None, recursive: bool = False) -> dict[str, str]:
    """The targets that `files.plan` has for sources; URLs as they are identified."""
    jobs = files.plan(
        inputs,
        out=out,
        recursive=recursive,
        suffix="_hdr",
        extension=".exr",
        accepts=lambda path: path.suffix.lower() in (".jpg", ".png"),
        extensions=(".exr", ".hdr", ".jpg"),
    )
    return {_named(job.source): _named(job.target) for job in jobs}


def _named(path: Path) -> str:
    return remote.identity(path) if remote.is_remote(path) else path.as_posix()


def write_picture(name: str, *, size: tuple[int, int] = (40, 56), clipped: bool = True) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 1.2 if clipped else 0.9, size[0] * size[1] * 3, dtype=np.float32).clip(0, 1)
    codecs.write(Image(ramp.reshape(*size, 3), Transfer.SRGB), path, "png")
    return path


def write_mosaic(name: str) -> Path:
    from hdrcli.codecs import dng

    counts = np.random.default_rng(0).integers(64, 1000, (48, 64), dtype=np.uint16)
    matrix = np.array([[0.9, -0.2, -0.1], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6]])
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    dng.write(Path(name), counts, black=64, white=1023, as_shot_neutral=(0.5, 1, 0.6), color_matrix=matrix)
    return Path(name)


@contextmanager
def dask_workers(number: int, folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """The address of a Dask scheduler with that many worker processes of one thread, replaced when they die."""
    from distributed import Client

    file = folder / f"scheduler-{time.time()}.json"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    workers = ["worker", "--host", "127.0.0.1", "--nworkers", str(number), "--nthreads", "1", "--no-dashboard"]
    with ExitStack() as stack:
        for part in (scheduler, workers):
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *part, "--scheduler-file", str(file)],
                env=os.environ | settings,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        while not file.exists():
            assert process.poll() is None, "dask does not start"
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(number, timeout=60)
        yield address
