"""Files elsewhere: URLs of stores and servers, as paths of universal_pathlib over fsspec.

Such a path is no `pathlib.Path`, but it answers to the methods that this project calls, and the type checker is told
that it is one.
"""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from hdrcli.errors import MissingExtraError, UsageError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://.*", re.DOTALL)
_LOCAL = ("file", "local")
_READ_ONLY = ("http", "https")
_ERRORS = (  # of the libraries below fsspec, which passes some of them on as they are
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)


def place(name: str) -> Path:
    """The path that a user names: a local one, or the one of a URL.

    MissingExtraError where a package for such URLs is not installed, UsageError for one that nobody knows.
    """
    found = _URL.fullmatch(name)
    if not found:
        return Path(name)
    scheme = found[1].lower()
    try:
        from upath import UPath

        path: Any = UPath(name)
        path.fs  # noqa: B018  # its package is imported here
    except ImportError as error:
        raise MissingExtraError(
            f"{scheme}:// needs a package that is not installed: {error}",
            hint="pip install 'hdrcli[remote]', and for a store its own: s3fs, gcsfs, adlfs, sshfs",
        ) from error
    except ValueError as error:
        raise UsageError(f"{name} is no URL that can be read: {error}", hint="such as s3://bucket/a.jpg") from error
    return Path(path.path) if scheme in _LOCAL else cast(Path, path)


def is_remote(path: Path) -> bool:
    """Whether a path is one of a URL."""
    return not isinstance(path, Path)


def is_read_only(path: Path) -> bool:
    """Whether a path is one of a web server, which takes no files and has no folders."""
    return is_remote(path) and cast(Any, path).protocol in _READ_ONLY


@contextmanager
def os_errors() -> Iterator[None]:
    """Whatever the clients of stores raise inside becomes OSError."""
    known = tuple(getattr(sys.modules[module], name) for module, name in _ERRORS if module in sys.modules)
    try:
        yield
    except OSError:
        raise
    except known as error:
        raise OSError(str(error)) from error


def is_dir(path: Path) -> bool:
    """Whether a URL is one of a folder; those of web servers never are."""
    with os_errors():
        return not is_read_only(path) and path.is_dir()


def is_there(path: Path) -> bool:
    """Whether there is something at a URL; web servers are not asked before it is read."""
    with os_errors():
        return is_read_only(path) or path.exists()


def members(folder: Path, recursive: bool) -> list[Path]:
    """All files of a folder in the order of their names, those whose name or folder starts with a dot left out."""
    with os_errors():
        found = _store(folder).find(_inside(folder), maxdepth=None if recursive else 1)
    paths = [_path(folder, name) for name in sorted(found)]
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def matches(pattern: Path) -> list[str]:
    """The URLs that match a pattern."""
    with os_errors():
        return sorted(str(_path(pattern, name)) for name in _store(pattern).glob(_inside(pattern)))


@contextmanager
def put(target: Path, part: str) -> Iterator[Path]:
    """Gives a local path to write to, whose content at the end is at `target`, all at once; on any error it is not.

    An object store takes an object whole or not at all. A file system elsewhere, which unlike a store moves files by
    itself, gets it beside `target` under the name `part` first.
    """
    import tempfile  # late, as help has no use for it

    from fsspec import AbstractFileSystem

    store, name = _store(target), _inside(target)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / f"picture{target.suffix}"
        yield local
        with os_errors():
            store.makedirs(_inside(target.parent), exist_ok=True)
            if type(store).mv is AbstractFileSystem.mv:
                store.pipe_file(name, local.read_bytes())
            else:
                _put_and_move(store, local, _inside(target.parent / part), name)


def _put_and_move(store: Any, local: Path, passing: str, name: str) -> None:
    try:
        store.put_file(str(local), passing)
        store.mv(passing, name)
    except BaseException:
        with suppress(OSError):
            store.rm_file(passing)
        raise


def sweep(folder: Path, prefix: str, seconds: float) -> None:
    """Removes files of a folder that begin like that and are that old, as far as its store lets it be known."""
    store = _store(folder)
    with suppress(OSError, NotImplementedError), os_errors():
        for name in store.ls(_inside(folder), detail=False):
            beginning = name.rpartition("/")[2].startswith(prefix)
            if beginning and time.time() - store.modified(name).timestamp() > seconds:
                store.rm_file(name)


def identity(path: Path) -> str:
    """The same for all ways to write a URL."""
    return str(_store(path).unstrip_protocol(_inside(path)))


def _store(path: Path) -> Any:
    """The file system of fsspec that a path belongs to."""
    return cast(Any, path).fs


def _inside(path: Path) -> str:
    """A path as its store calls it."""
    return str(cast(Any, path).path)


def _path(sibling: Path, name: str) -> Path:
    """The path of what the store of another path calls `name`."""
    return place(_store(sibling).unstrip_protocol(name))
