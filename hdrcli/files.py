"""From what the user named to what will be written: the plan of a run, and writes that are whole or not at all."""

import codecs
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hdrcli import remote
from hdrcli.errors import ReadError, UsageError, WriteError
from hdrcli.remote import is_remote, place

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

STREAM = Path("-")  # standard input as a source, standard output as a target

_PART = ".hdrcli-part-"
_STALE_AFTER = 24 * 3600.0  # seconds


class Job(NamedTuple):
    """One picture to make: where it comes from and where it goes; either may be STREAM.

    root: the folder above the source whose tree is kept under an output folder, where there is one.
    """

    source: Path
    target: Path
    root: Path | None = None


class _Found(NamedTuple):
    path: Path
    root: Path  # the folder whose tree is kept under an output folder


def plan(
    inputs: Sequence[str],
    *,
    out: str | None,
    recursive: bool,
    suffix: str,
    extension: str,
    accepts: Callable[[Path], bool],
    extensions: Collection[str] = (),
) -> list[Job]:
    """Turns the command line's INPUTs and OUT into jobs, and refuses whatever would overwrite by surprise.

    inputs: files, folders, glob patterns a shell left alone, "-" for standard input; paths or URLs.
    out: a folder, a file when there is one input, "-" for standard output, None for beside the inputs.
    suffix: added to the stem of an output that lies beside its input. extension: of the outputs, with the dot.
    accepts: whether a file met in a folder is an input. extensions: those that make OUT a file, not a folder.
    A file that is named but missing stays in the plan and fails when its turn comes. Raises UsageError.
    """
    found = list(dict.fromkeys(_find(inputs, recursive, lambda path: accepts(path) and not _own(path, suffix))))
    if not found:
        places = ", ".join(inputs) or "the list of inputs"
        hint = "" if recursive else "sub-folders are searched with --recursive"
        raise UsageError(f"there is nothing to work on in {places}", hint=hint)
    target_of = _placement(found, out, suffix, extension, {e.lower() for e in extensions} | {extension})
    jobs = [Job(item.path, target_of(item), item.root) for item in found]
    _refuse_collisions(jobs)
    return jobs


def frames(name: str) -> list[str]:
    """The files of a numbered sequence, `frame_%04d.png`, by their numbers; any other name itself.

    Raises UsageError where there is none of them.
    """
    path = place(name)
    number = re.search(r"%(?:0(\d+))?d", path.name)
    if number is None or _is_there(path):
        return [name]
    before, after = path.name[: number.start()], path.name[number.end() :]
    pattern = re.compile(rf"{re.escape(before)}(\d{{{number[1] or 1},}}){re.escape(after)}")
    members = path.parent.iterdir() if _is_dir(path.parent) else ()
    found = sorted((int(match[1]), str(member)) for member in members if (match := pattern.fullmatch(member.name)))
    if not found:
        raise UsageError(f"there is no file like {name}", hint="%04d stands for a number of four digits")
    return [member for _, member in found]


def read_list(data: bytes, *, null: bool = False) -> list[str]:
    """The paths of a list: one a line or, in a list that holds zero bytes or where `null`, one before each of them."""
    separated = null or b"\0" in data
    names = data.split(b"\0") if separated else data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").split(b"\n")
    return [os.fsdecode(name) for name in names if (name if separated else name.strip())]


def write_list(path: Path, names: Sequence[str], *, null: bool = False) -> None:
    """Writes a list for `read_list`, with zero bytes where asked for or where a name would not survive as a line."""
    separated = null or any(name != name.strip() or "\n" in name for name in names)
    end = b"\0" if separated else b"\n"
    with atomic_write(path) as part:
        part.write_bytes(b"".join(os.fsencode(name) + end for name in names))


def listed(job: Job) -> str:
    """The source of a job as a name that, given as an input, leads to the same output: `root/./path/under/it`."""
    if job.root is None or job.root == job.source.parent:
        return str(job.source)
    parts = job.source.relative_to(job.root).parts
    return _mark(job.source).join([str(job.root).rstrip("/"), "/".join(parts)])


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Gives a temporary path beside `target` to write to and renames it at the end; on any error nothing is left.

    Missing folders are made. For a URL the path is a local one, whose content is sent at the end. OSError, also from
    the writing inside, becomes WriteError.
    """
    refuse_folder(target)
    with _writable(target):
        if is_remote(target):
            with remote.put(target, _part_name(target)) as part, _named(target, part):
                yield part
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part(target) as part:
            with _named(target, part):
                yield part
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(target)


@contextmanager
def _named(target: Path, part: Path) -> Iterator[None]:
    """A WriteError inside that names the temporary path names the target instead."""
    try:
        yield
    except WriteError as error:
        raise WriteError(error.message.replace(str(part), str(target)), hint=error.hint) from error


def is_written(target: Path) -> bool:
    """Whether an output is there; WriteError where that cannot be found out."""
    with _writable(target):
        return target.is_file()


def refuse_folder(target: Path) -> None:
    """WriteError where an output's name is that of a folder."""
    with _writable(target):
        taken = target.is_dir()
    if taken:
        raise WriteError(f"cannot write {target}: it is a folder", hint="move it away, or give another place with -o")


def sweep(folders: Iterable[Path]) -> None:
    """Removes temporary files that killed runs left in `folders`, and none of a run that goes on.

    Where there are no locks that end with their process, as for URLs, only those that are a day old.
    """
    for folder in folders:
        if is_remote(folder):
            remote.sweep(folder, _PART, _STALE_AFTER)
            continue
        for part in folder.glob(f"{_PART}*"):
            with suppress(OSError), part.open("rb+") as file:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                elif time.time() - part.stat().st_mtime < _STALE_AFTER:
                    continue
                part.unlink()


@contextmanager
def _part(target: Path) -> Iterator[Path]:
    """A path beside `target` for a new file, locked while in use; what still has that name at the end is removed."""
    part, lock = _claimed(target)
    try:
        yield part
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def _claimed(target: Path) -> tuple[Path, int | None]:
    """The path, and the file descriptor that holds the lock where the system has such locks."""
    while True:
        part = target.parent / _part_name(target)
        if not fcntl:
            return part, None
        lock = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks; `sweep` then finds none, either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if part.exists() and os.path.samestat(os.fstat(lock), part.stat()):
            return part, lock
        os.close(lock)  # the sweep of another run came between


def _part_name(target: Path) -> str:
    return f"{_PART}{os.urandom(6).hex()}{target.suffix}"


def openable(source: Path) -> Path | bytes:
    """What another process can read: the path of a file, the bytes of a pipe or a URL; otherwise ReadError."""
    if is_remote(source) or not existing(source).is_file():
        return content(source)
    return source


def existing(source: Path) -> Path:
    """`source`, if it is there and no folder (pipes are fine); otherwise ReadError."""
    with _readable(source):
        source.stat()
    if source.is_dir():
        raise ReadError(f"{source} is a folder", hint="name the files in it")
    return source


def content(source: Path) -> bytes:
    """The bytes of a file, a pipe or a URL; otherwise ReadError."""
    if not is_remote(source):
        existing(source)
    with _readable(source):
        return source.read_bytes()


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    """OSError inside becomes ReadError."""
    try:
        with remote.os_errors():
            yield
    except FileNotFoundError as error:
        broken = f", a link to {source.readlink()}," if source.is_symlink() else ""
        raise ReadError(f"{source}{broken} does not exist", hint="check the path and its spelling") from error
    except OSError as error:
        raise ReadError(
            f"{source} cannot be read: {error.strerror or error}", hint="check the path, its permissions and the disk"
        ) from error


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    """OSError inside becomes WriteError."""
    try:
        with remote.os_errors():
            yield
    except OSError as error:
        raise WriteError(
            f"cannot write {target}: {error.strerror or error}",
            hint="check that the folder can be written to and that the disk is not full",
        ) from error


def _find(inputs: Sequence[str], recursive: bool, accepts: Callable[[Path], bool]) -> Iterator[_Found]:
    for name in inputs:
        path = place(name)
        if path == STREAM:
            yield _Found(STREAM, Path())
        elif _is_dir(path):
            yield from (_Found(member, path) for member in _members(path, recursive) if accepts(member))
        elif not _is_there(path) and (matches := _glob(name)):
            yield from _find(matches, recursive, accepts)
        else:
            root, marked, rest = name.rpartition(_mark(path))
            yield _Found(place(root) / rest, place(root)) if marked else _Found(path, path.parent)


def _mark(path: Path) -> str:
    """What stands in the names of files where a tree begins, as for rsync."""
    return "/./" if is_remote(path) else f"{os.sep}.{os.sep}"


def _members(folder: Path, recursive: bool) -> Iterator[Path]:
    if is_remote(folder):
        with _readable(folder):
            yield from remote.members(folder, recursive)
        return
    with _readable(folder):
        members = sorted(folder.iterdir())
    for member in members:
        if member.name.startswith("."):
            continue
        if member.is_file():
            yield member
        elif recursive and member.is_dir() and not member.is_symlink():
            yield from _members(member, recursive)


def _is_dir(path: Path) -> bool:
    if is_remote(path):
        with _readable(path):
            return remote.is_dir(path)
    return os.path.isdir(path)  # noqa: PTH112  # says no to names that cannot be, too long ones for one, as Path does not


def _is_there(path: Path) -> bool:
    if is_remote(path):
        with _readable(path):
            return remote.is_there(path)
    return os.path.exists(path)  # noqa: PTH110


def _glob(pattern: str) -> list[str]:
    path = place(pattern)
    if not any(c in pattern for c in "*?["):
        return []
    if is_remote(path):
        with _readable(path):
            return remote.matches(path)
    anchor = Path(path.anchor)
    return sorted(str(match) for match in anchor.glob(path.relative_to(anchor).as_posix()))


def _own(path: Path, suffix: str) -> bool:
    """Whether a file in a folder is an earlier output, or the preview of one."""
    return path.stem.removesuffix("_preview").endswith(suffix)


def _placement(
    found: Sequence[_Found], out: str | None, suffix: str, extension: str, extensions: Collection[str]
) -> Callable[[_Found], Path]:
    if out is None:
        return lambda item: STREAM if item.path == STREAM else _beside(item.path, suffix, extension)
    goal = place(out)
    if remote.is_read_only(goal):
        raise UsageError(f"nothing can be written to {out}", hint="give a folder, or the URL of a store, with -o")
    is_folder = _is_dir(goal) or out.endswith(("/", os.sep))
    if goal == STREAM or (goal.suffix.lower() in extensions and not is_folder):
        if len(found) > 1:
            raise UsageError(f"{len(found)} inputs do not fit into one output, {out}", hint="give a folder with -o")
        return lambda item: goal
    if _is_there(goal) and not is_folder:
        raise UsageError(f"{out} is a file of a kind that cannot be written", hint="give a folder or another ending")

    def inside(item: _Found) -> Path:
        if item.path == STREAM:
            return goal / f"stdin{extension}"
        folder = goal.joinpath(*item.path.parent.relative_to(item.root).parts)
        if _identity(folder) == _identity(item.path.parent):
            return _beside(item.path, suffix, extension)
        return folder / f"{item.path.stem}{extension}"

    return inside


def _beside(path: Path, suffix: str, extension: str) -> Path:
    if remote.is_read_only(path):
        raise UsageError(f"nothing can be written beside {path}", hint="give a folder with -o")
    return path.with_name(f"{path.stem}{suffix}{extension}")


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {_identity(job.source) for job in jobs if job.source != STREAM}
    first: dict[str, Path] = {}
    for source, target, _ in jobs:
        if target == STREAM:
            continue
        identity = _identity(target)
        if identity in sources:
            raise UsageError(f"the output {target} is one of the inputs", hint="give another place with -o")
        if identity in first:
            other = first[identity]
            apart = "give their common folder as the input, so that its tree is kept"
            way = "leave one of them out" if source.parent == other.parent else apart
            raise UsageError(
                f"{other} and {source} would both be written to {target}",
                hint=f"{way}, or run them one at a time with an output named",
            )
        first[identity] = source


def _identity(path: Path) -> str:
    return remote.identity(path) if is_remote(path) else os.path.normcase(os.path.realpath(path))
