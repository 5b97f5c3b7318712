"""How large a picture may be, whatever its file claims."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hdrcli.errors import ReadError

MOST_PIXELS = 10**9

_MOST: ContextVar[int] = ContextVar("most", default=MOST_PIXELS)


@contextmanager
def most_pixels(number: int) -> Iterator[None]:
    """While inside, readers refuse pictures of more than `number` pixels."""
    token = _MOST.set(number)
    try:
        yield
    finally:
        _MOST.reset(token)


def check_size(width: int, height: int, name: str) -> None:
    """ReadError for a picture too large to be meant; readers ask before they make room for its pixels."""
    if width * height > _MOST.get():
        raise ReadError(
            f"{name} claims {width} x {height} pixels, more than the {_MOST.get():,} that are read",
            hint="use --max-pixels N if it is truly that large",
        )
