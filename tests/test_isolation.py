"""Decoder processes: what they give back, and that a file which brings one down takes nothing else along."""

import ctypes
import os
import pickle
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from hdrcli import codecs
from hdrcli.errors import ReadError
from hdrcli.image import Image, Transfer
from hdrcli.isolation import Decoders, Limits

# What a decoder may do to its process. Each is called there, by its name in this module.


def segfault(*, name: str) -> None:
    ctypes.string_at(0)


def abort(*, name: str) -> None:
    os.abort()


def hang(*, name: str) -> None:
    time.sleep(1000)


def hang_on(source: Path, *, name: str) -> None:
    time.sleep(1000)


def hang_without_letting_go(*, name: str) -> None:
    ctypes.PyDLL(None).usleep(1_000_000_000)


def fill_memory(*, name: str) -> None:
    kept = []
    while True:
        kept.append(np.ones(1 << 24, np.uint8))


def bug(*, name: str) -> None:
    raise ZeroDivisionError("a reader that was not ready for this")


def too_little_memory(*, name: str) -> None:
    raise MemoryError


def say(*, name: str) -> int:
    print("what a library thinks of the file")
    os.write(1, b"and what another one does")
    os.write(2, b"a complaint")
    return os.getpid()


def poisoned(count: int, *, name: str) -> int:
    """Crashes on the second call in one process, as after a file that has left its memory in disorder."""
    poisoned.calls = getattr(poisoned, "calls", 0) + 1  # type: ignore[attr-defined]
    if poisoned.calls > 1:  # type: ignore[attr-defined]
        os.abort()
    return count


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with Decoders(Limits(seconds=20.0)) as pool:
        yield pool


def children() -> int:
    return len(psutil.Process().children())


def test_a_picture_comes_back_as_it_is(decoders: Decoders, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((301, 407, 3), np.float32)
    codecs.write(Image(pixels, Transfer.LINEAR), tmp_path / "a.exr", "exr", codecs.WriteOptions(half=False))
    image = decoders(codecs.read, tmp_path / "a.exr", name="a name")
    here = codecs.read(tmp_path / "a.exr", name="a name")
    np.testing.assert_array_equal(image.pixels, here.pixels)
    assert image.pixels.flags.writeable
    assert (image.transfer, image.meta) == (here.transfer, here.meta)
    data = (tmp_path / "a.exr").read_bytes()
    np.testing.assert_array_equal(decoders(codecs.read, data, name="-").pixels, pixels)


def test_what_was_begun_is_read_once_and_fails_when_it_is_asked_for(decoders: Decoders, tmp_path: Path) -> None:
    codecs.write(Image(np.zeros((3, 5, 3), np.float32), Transfer.LINEAR), tmp_path / "a.exr", "exr")
    (tmp_path / "bad.exr").write_bytes(b"")
    for name in ("a.exr", "bad.exr"):
        decoders.begin(codecs.read, tmp_path / name)
    with pytest.raises(ReadError, match="is empty"):
        decoders.read(codecs.read, tmp_path / "bad.exr")
    first = decoders.read(codecs.read, tmp_path / "a.exr")
    (tmp_path / "a.exr").unlink()
    assert first.pixels.shape == (3, 5, 3)
    with pytest.raises(ReadError):  # nothing is kept for a second time
        decoders.read(codecs.read, tmp_path / "a.exr")


def test_what_was_begun_and_not_asked_for_ends_with_the_decoders(tmp_path: Path) -> None:
    start = time.monotonic()
    with Decoders(Limits(seconds=60.0)) as decoders:
        decoders.begin(hang_on, tmp_path)
    assert time.monotonic() - start < 20
    assert children() == 0


def test_what_a_reader_raises_comes_back_with_its_hint(decoders: Decoders, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="x is empty") as caught:
        decoders(codecs.read, b"", name="x")
    assert caught.value.hint == "copy the file again from its source"
    with pytest.raises(MemoryError):
        decoders(too_little_memory, name="x")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (segfault, "decoder crashed (SIGSEGV"),
        (abort, "decoder crashed (SIGABRT"),
        (bug, "ZeroDivisionError: a reader that was not ready for this"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_crash_is_an_error_of_that_file_alone(decoders: Decoders, fault: object, words: str) -> None:
    for _ in range(2):  # in a fresh process and in one that has worked before
        with pytest.raises(ReadError) as caught:
            decoders(fault, name="bad.jpg")  # type: ignore[arg-type]
        assert caught.value.message.startswith("bad.jpg: its ")
        assert words in caught.value.message
        assert decoders(say, name="good.jpg") != os.getpid()
    assert children() == 1


@pytest.mark.parametrize("fault", [hang, hang_without_letting_go], ids=lambda fault: fault.__name__)
def test_a_hang_ends_at_the_limit(fault: object) -> None:
    with Decoders(Limits(seconds=1.0)) as decoders:
        with pytest.raises(ReadError, match=r"bad.jpg: decoding it took more than 1 s"):
            decoders(fault, name="bad.jpg")  # type: ignore[arg-type]
        assert decoders(say, name="good.jpg")


def test_memory_has_a_limit() -> None:
    with Decoders(Limits(seconds=60.0, memory=400 << 20)) as decoders:
        with pytest.raises(ReadError, match=r"took more than 0\.4 GiB of memory"):
            decoders(fill_memory, name="bad.jpg")
        assert decoders(say, name="good.jpg")


def test_an_innocent_file_is_not_blamed_for_an_earlier_one(decoders: Decoders) -> None:
    assert [decoders(poisoned, count, name="x") for count in range(4)] == [0, 1, 2, 3]


def test_processes_are_kept_and_print_nothing(decoders: Decoders, capfd: pytest.CaptureFixture[str]) -> None:
    assert len({decoders(say, name="x") for _ in range(3)}) == 1
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_threads_have_processes_of_their_own_and_all_end(decoders: Decoders) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda count: decoders(echo, count, name="x"), range(12))) == list(range(12))
    assert 1 <= children() <= 3
    decoders.close()
    assert children() == 0


def echo(count: int, *, name: str) -> int:
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="pipes whose size can be set are Linux's")
def test_narrow_pipes_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user who has many processes with wide ones."""

    def refuse(pipe: object, *settings: int) -> None:
        raise PermissionError

    monkeypatch.setattr("hdrcli.isolation.fcntl.fcntl", refuse)
    with Decoders(Limits(seconds=20.0)) as decoders:
        assert decoders(echo, 3, name="x") == 3


def test_closing_ends_what_is_under_way(decoders: Decoders) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decoders, hang, name="x")
        while not children():
            time.sleep(0.01)
        decoders.close()
        with pytest.raises(ReadError):
            waiting.result(timeout=10)
    assert children() == 0


def test_the_limit_of_pixels_holds_there(tmp_path: Path) -> None:
    codecs.write(Image(np.zeros((10, 11, 3), np.float32), Transfer.SRGB), tmp_path / "a.png", "png")
    with (
        Decoders(Limits(pixels=109)) as decoders,
        pytest.raises(ReadError, match=r"a\.png claims 11 x 10 pixels, more than the 109"),
    ):
        decoders(codecs.read, tmp_path / "a.png", name="a.png")


def loaded(module: str, *, name: str) -> bool:
    return module in sys.modules


def test_decoders_never_load_torch(decoders: Decoders) -> None:
    from hdrcli.tasks.develop import Development
    from hdrcli.tasks.expand import Expansion

    for way in (Development, Expansion):
        with pytest.raises(ReadError, match="is empty"):
            decoders(way(model=None).reader, b"", name="x")  # type: ignore[arg-type]
    assert not decoders(loaded, "torch", name="x")
    assert decoders(loaded, "numpy", name="x")


def test_decoders_travel_as_their_limits() -> None:
    with Decoders(Limits(pixels=5), warm=["hdrcli.codecs.png"]) as decoders:
        there: Decoders = pickle.loads(pickle.dumps(decoders))
    assert there.limits == Limits(pixels=5)
    assert children() == 0
