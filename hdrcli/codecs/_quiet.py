"""Keeps the complaints that C libraries print about damaged files out of stdout and stderr."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.Lock()
_COMPLAINT = re.compile(
    rb"\(EXR_ERR_"  # OpenEXR
    rb"|^(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Warning: unknown JFIF)"
    rb"|^(tempfile\.tif|_?(TIFF|LZW|ZIP|O?JPEG|Fax|PackBits|LogL|Pixar|LERC|ZSTD|LZMA|Predictor|Thunder|NeXT)\w*): "
)


@contextmanager
def libraries_silent() -> Iterator[list[str]]:
    """While inside, what OpenEXR, libtiff and libjpeg print is kept back; what other threads print still arrives.

    Yields a list that holds their complaints afterwards.

    OpenEXR, Pillow's libtiff and OpenCV's libjpeg write to the process's stderr with no way to turn that off, and
    OpenEXR's Python module prints to sys.stdout. One thread at a time.
    """
    complaints: list[str] = []
    with _LOCK, _stdout_muted(), _stderr_filtered(complaints):
        yield complaints


@contextmanager
def _stderr_filtered(complaints: list[str]) -> Iterator[None]:
    try:
        stderr = os.dup(2)
    except OSError:  # the process has no stderr
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            caught.seek(0)
            said = caught.readlines()
            complaints += [line.decode("utf-8", "replace").strip() for line in said if _COMPLAINT.search(line)]
            os.write(stderr, b"".join(line for line in said if not _COMPLAINT.search(line)))
            os.close(stderr)


@contextmanager
def _stdout_muted() -> Iterator[None]:
    original, muted = sys.stdout, _MutedHere(sys.stdout)
    sys.stdout = muted
    try:
        yield
    finally:
        muted.thread = 0
        if sys.stdout is muted:
            sys.stdout = original


class _MutedHere:
    """A stream that swallows what the thread that made it writes, and passes on everything else."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.thread = threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() == self.thread:
            return len(text)
        return int(self.stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
