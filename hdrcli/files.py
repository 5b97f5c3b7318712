"""From what the user named to what will be written: the plan of a run, and writes that are whole or not at all."""

import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hdrcli.errors import ReadError, UsageError, WriteError

STREAM = Path("-")  # standard input as a source, standard output as a target

_PART = ".hdrcli-part-"
_STALE_AFTER = 24 * 3600.0  # seconds


class Job(NamedTuple):
    """One picture to make: where it comes from and where it goes; either may be STREAM."""

    source: Path
    target: Path


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

    inputs: files, folders, glob patterns a shell left alone, "-" for standard input.
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
    jobs = [Job(item.path, target_of(item)) for item in found]
    _refuse_collisions(jobs)
    return jobs


def frames(name: str) -> list[str]:
    """The files of a numbered sequence, `frame_%04d.png`, by their numbers; any other name itself.

    Raises UsageError where there is none of them.
    """
    path = Path(name)
    number = re.search(r"%(?:0(\d+))?d", path.name)
    if number is None or path.exists():
        return [name]
    before, after = path.name[: number.start()], path.name[number.end() :]
    pattern = re.compile(rf"{re.escape(before)}(\d{{{number[1] or 1},}}){re.escape(after)}")
    members = path.parent.iterdir() if path.parent.is_dir() else ()
    found = sorted((int(match[1]), str(member)) for member in members if (match := pattern.fullmatch(member.name)))
    if not found:
        raise UsageError(f"there is no file like {name}", hint="%04d stands for a number of four digits")
    return [member for _, member in found]


def read_list(text: str) -> list[str]:
    """The paths of a list with one path a line; empty lines are passed over."""
    return [line for line in text.splitlines() if line.strip()]


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Gives a temporary path beside `target` to write to and renames it at the end; on any error nothing is left.

    Missing folders are made. OSError, also from the writing inside, becomes WriteError.
    """
    part = target.parent / f"{_PART}{secrets.token_hex(6)}{target.suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.replace(target)
    except OSError as error:
        raise WriteError(
            f"cannot write {target}: {error.strerror or error}",
            hint="check that the folder can be written to and that the disk is not full",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def sweep(folders: Iterable[Path]) -> None:
    """Removes temporary files that a killed run left in `folders` more than a day ago."""
    for folder in folders:
        for part in folder.glob(f"{_PART}*"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _STALE_AFTER:
                    part.unlink()


def existing(source: Path) -> Path:
    """`source`, if it is there and no folder (pipes are fine); otherwise ReadError."""
    if source.is_dir():
        raise ReadError(f"{source} is a folder", hint="name the files in it")
    if not source.exists():
        raise ReadError(f"{source} does not exist", hint="check the path and its spelling")
    return source


def _find(inputs: Sequence[str], recursive: bool, accepts: Callable[[Path], bool]) -> Iterator[_Found]:
    for name in inputs:
        path = Path(name)
        if path == STREAM:
            yield _Found(STREAM, Path())
        elif path.is_dir():
            yield from (_Found(member, path) for member in _members(path, recursive) if accepts(member))
        elif not path.exists() and (matches := _glob(name)):
            yield from _find(matches, recursive, accepts)
        else:
            yield _Found(path, path.parent)


def _members(folder: Path, recursive: bool) -> Iterator[Path]:
    for member in sorted(folder.iterdir()):
        if member.name.startswith("."):
            continue
        if member.is_file():
            yield member
        elif recursive and member.is_dir() and not member.is_symlink():
            yield from _members(member, recursive)


def _glob(pattern: str) -> list[str]:
    path = Path(pattern)
    anchor = Path(path.anchor)
    parts = path.relative_to(anchor).as_posix()
    return sorted(str(match) for match in anchor.glob(parts)) if any(c in pattern for c in "*?[") else []


def _own(path: Path, suffix: str) -> bool:
    """Whether a file in a folder is an earlier output, or the preview of one."""
    return path.stem.removesuffix("_preview").endswith(suffix)


def _placement(
    found: Sequence[_Found], out: str | None, suffix: str, extension: str, extensions: Collection[str]
) -> Callable[[_Found], Path]:
    if out is None:
        return lambda item: STREAM if item.path == STREAM else _beside(item.path, suffix, extension)
    place = Path(out)
    is_folder = place.is_dir() or out.endswith(("/", os.sep))
    if place == STREAM or (place.suffix.lower() in extensions and not is_folder):
        if len(found) > 1:
            raise UsageError(f"{len(found)} inputs do not fit into one output, {out}", hint="give a folder with -o")
        return lambda item: place
    if place.is_file():
        raise UsageError(f"{out} is a file of a kind that cannot be written", hint="give a folder or another ending")

    def inside(item: _Found) -> Path:
        if item.path == STREAM:
            return place / f"stdin{extension}"
        folder = place / item.path.parent.relative_to(item.root)
        if folder.resolve() == item.path.parent.resolve():
            return _beside(item.path, suffix, extension)
        return folder / f"{item.path.stem}{extension}"

    return inside


def _beside(path: Path, suffix: str, extension: str) -> Path:
    return path.with_name(f"{path.stem}{suffix}{extension}")


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {_identity(job.source) for job in jobs if job.source != STREAM}
    first: dict[str, Path] = {}
    for source, target in jobs:
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
    return os.path.normcase(path.resolve())
