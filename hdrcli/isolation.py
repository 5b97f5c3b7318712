"""Decoding in processes of its own: a file that crashes its decoder, hangs it or fills the memory fails alone.

A decoder process imports what decoding needs and no torch. Requests and answers are pickles in pipes, their arrays as
raw bytes behind them. This isolates faults; it is no sandbox against code that a decoder was tricked into running.
"""

import faulthandler
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Event, Lock, Thread
from time import perf_counter
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, TypeVar

if sys.platform == "linux":
    import fcntl

from hdrcli import files, heap, limits
from hdrcli.errors import HdrError, ReadError

Answer = TypeVar("Answer")

_SIZES = struct.Struct("<QQ")  # of the pickle, and the number of buffers behind it
_SIZE = struct.Struct("<Q")
_PIPE = 1 << 20  # bytes that a pipe holds, where the system lets that be chosen
_LOOK_EVERY = 0.05  # seconds between two looks at a decoder's memory
_DAMAGED = "the file is most likely damaged: copy it again from its source"


class Limits(NamedTuple):
    """What one file may take. pixels: of the picture. seconds: of decoding. memory: bytes, None for half the machine's.

    Memory is watched, not reserved, so that a file may exceed it for some hundredths of a second.
    """

    pixels: int = limits.MOST_PIXELS
    seconds: float = 180.0
    memory: int | None = None


class Decoders:
    """Decoder processes that are started when they are needed, kept for the next file and replaced when they end.

    Calls may come from several threads; each has a process of its own. warm: modules that the first process, started
    at once, imports while it waits for work. Pickled, it becomes one without processes.
    """

    def __init__(self, limits: Limits = Limits(), warm: Sequence[str] = ()) -> None:  # noqa: B008  # it is immutable
        self.limits = limits
        self._warm = tuple(warm)
        self._lock = Lock()
        self._idle: list[_Decoder] = []
        self._all: set[_Decoder] = set()
        self._begun: dict[Path, Future[Any]] = {}
        self._closed = False
        if warm:
            self._idle.append(self._started())

    def __call__(self, read: Callable[..., Answer], *arguments: Any, name: str, **settings: Any) -> Answer:
        """What `read(*arguments, name=name, **settings)` returns or raises in a decoder process.

        read: a function of some module, and all else too: what can be pickled. name: of the file, for messages.
        ReadError where the process ends instead, by itself or because a limit was reached.
        """
        while True:
            decoder = self._taken()
            first = not decoder.used
            try:
                answer = decoder.ask(read, arguments, settings | {"name": name}, self.limits)
            except _EndedError as end:
                self._dropped(decoder)
                if first or self._closed or end.by_limit:
                    raise ReadError(f"{name}: {end}", hint=end.hint) from None
                continue  # an earlier file may have left the process damaged: this one gets a fresh one
            self._kept(decoder)
            if isinstance(answer, Exception):
                raise answer
            result: Answer = answer
            return result

    def begin(self, reader: Callable[..., Any], source: Path) -> None:
        """Begins what `read` will soon be asked for, while the caller does something else."""
        heap.share()
        thread = ThreadPoolExecutor(1)
        self._begun[source] = thread.submit(self._read, reader, source)
        thread.shutdown(wait=False)

    def read(self, reader: Callable[..., Answer], source: Path) -> Answer:
        """What `reader`, which takes a path or bytes and a `name`, makes of a file, or of standard input."""
        begun = self._begun.pop(source, None)
        return begun.result() if begun else self._read(reader, source)

    def _read(self, reader: Callable[..., Answer], source: Path) -> Answer:
        if source == files.STREAM:
            return self(reader, sys.stdin.buffer.read(), name="-")
        return self(reader, files.openable(source), name=source.name)

    def close(self) -> None:
        """Ends all processes, also those at work, whose callers get a ReadError."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for decoder in self._all:
                decoder.kill()
        for decoder in idle:
            self._dropped(decoder)

    def __del__(self) -> None:
        self.close()  # of those that a worker of a cluster no longer needs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["Decoders"], tuple[Limits]]:
        return Decoders, (self.limits,)

    def _taken(self) -> "_Decoder":
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.alive:
                    return decoder
                decoder.end()
                self._all.discard(decoder)
        return self._started()

    def _started(self) -> "_Decoder":
        decoder = _Decoder(self.limits, self._warm)
        with self._lock:
            self._all.add(decoder)
            late = self._closed
        if late:
            decoder.kill()
        return decoder

    def _kept(self, decoder: "_Decoder") -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(decoder)
                return
        self._dropped(decoder)

    def _dropped(self, decoder: "_Decoder") -> None:
        decoder.end()
        with self._lock:
            self._all.discard(decoder)


class _EndedError(Exception):
    """The process has ended. by_limit: because it reached one of its limits."""

    def __init__(self, why: str, hint: str, *, by_limit: bool) -> None:
        super().__init__(why)
        self.hint = hint
        self.by_limit = by_limit


class _Decoder:
    """One process, seen from outside."""

    def __init__(self, limits: Limits, warm: Sequence[str]) -> None:
        program = f"import sys; sys.path[:] = {sys.path!r}; from hdrcli.isolation import serve; serve({warm!r})"
        # A group of its own: Ctrl-C goes to the main process alone, which decides what is finished.
        alone: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            alone = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self.used = False
        self._said = tempfile.TemporaryFile("ab+")  # noqa: SIM115  # closed when the process is ended
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"OPENCV_IO_MAX_IMAGE_PIXELS": str(limits.pixels)},
            **alone,
        )
        assert self._process.stdin and self._process.stdout
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, read: Callable[..., Any], arguments: Sequence[Any], settings: dict[str, Any], limits: Limits) -> Any:
        """What the process answers; an exception is an answer, too. _EndedError where it gives none."""
        assert self._process.stdin and self._process.stdout
        self.used = True
        start = perf_counter()
        with self._watched(limits) as too_much:
            try:
                _send(self._process.stdin, (read, arguments, settings, limits))
                return _receive(self._process.stdout)
            except (OSError, EOFError):
                code = self._process.wait()
        if too_much:
            hint = "the file is most likely damaged; if it is not, a machine with more memory can read it"
            why = f"decoding it took more than {too_much[0] / 2**30:.1f} GiB of memory"
            raise _EndedError(why, hint, by_limit=True)
        if perf_counter() - start >= limits.seconds:
            raise _EndedError(f"decoding it took more than {limits.seconds:g} s", _DAMAGED, by_limit=True)
        raise _EndedError(f"its decoder crashed ({self._ending(code)})", _DAMAGED, by_limit=False)

    def kill(self) -> None:
        """Ends the process; whoever waits for its answer sees that."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process and lets go of all that belonged to it."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._said):
            with suppress(OSError):  # bytes that nobody will read any more
                file.close()  # type: ignore[union-attr]

    def _ending(self, code: int) -> str:
        """How the process ended and the last words on its standard error, such as an exception's."""
        names = {-item.value: item.name for item in signal.Signals}
        self._said.seek(0)
        words = self._said.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "")
        return names.get(code, f"exit code {code}") + (f": {last}" if last else "")

    @contextmanager
    def _watched(self, limits: Limits) -> Iterator[list[int]]:
        """Meanwhile, the process is ended when it holds more memory than it may; then the limit is in the list."""
        import psutil  # late, as it is not needed where nothing is decoded

        most = limits.memory or psutil.virtual_memory().total // 2
        too_much: list[int] = []
        done = Event()

        def watch() -> None:
            with suppress(psutil.Error):
                process = psutil.Process(self._process.pid)
                while not done.wait(_LOOK_EVERY):
                    if process.memory_info().rss > most:
                        too_much.append(most)
                        self._process.kill()
                        return

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield too_much
        finally:
            done.set()
            watcher.join()


def serve(warm: Sequence[str] = ()) -> None:
    """The whole life of a decoder process: answers requests from standard input on standard output."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # C libraries print there
    with suppress(OSError):  # Linux: when memory runs out, this process goes first and not the one with the results
        Path("/proc/self/oom_score_adj").write_text("1000")
    for module in warm:
        with suppress(ImportError):  # a missing extra is reported for the file that needs it
            import_module(module)
    with suppress(EOFError):
        while True:
            read, arguments, settings, bounds = _receive(requests)
            os.ftruncate(2, 0)  # of what was said about earlier files
            # Outlives a main process that was killed, and needs no turn of Python's to do its work.
            faulthandler.dump_traceback_later(bounds.seconds, exit=True, file=nowhere)
            with limits.most_pixels(bounds.pixels):
                answer = _answer(read, arguments, settings)
            faulthandler.cancel_dump_traceback_later()
            _send(answers, answer)
            del answer


def _answer(read: Callable[..., Any], arguments: Sequence[Any], settings: dict[str, Any]) -> Any:
    try:
        return read(*arguments, **settings)
    except (HdrError, MemoryError) as error:
        return error  # any other exception ends this process, and the file's report quotes it


def _widen(pipe: IO[bytes]) -> None:
    """Lets a pipe hold more, where the system has that and as long as the user's pipes hold little in all."""
    if sys.platform == "linux":
        with suppress(PermissionError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


def _send(pipe: IO[bytes], value: object) -> None:
    """A pickle whose arrays follow it as they are, without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    pipe.write(_SIZES.pack(len(head), len(views)) + b"".join(_SIZE.pack(view.nbytes) for view in views) + head)
    for view in views:
        pipe.write(view)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """What was sent; EOFError where that ends early."""
    length, count = _SIZES.unpack(_exactly(pipe, _SIZES.size))
    sizes = [_SIZE.unpack(_exactly(pipe, _SIZE.size))[0] for _ in range(count)]
    head = _exactly(pipe, length)
    return pickle.loads(head, buffers=[_exactly(pipe, size) for size in sizes])


def _exactly(pipe: IO[bytes], size: int) -> memoryview:
    import numpy as np  # late, as help and lists do not need it

    content = np.empty(size, np.uint8).data  # in large pages, where the system has them
    view, place = content, 0
    while place < size:
        count = pipe.readinto(view[place:])  # type: ignore[attr-defined]  # of every binary stream
        if not count:
            raise EOFError
        place += count
    return content
