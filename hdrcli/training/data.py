"""What a network learns from and is validated on, found in a folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdrcli import layouts
from hdrcli.cards import Task
from hdrcli.errors import HdrError, ReadError, UsageError
from hdrcli.layouts import Layout

_VALIDATION = ("val", "test")


@dataclass(frozen=True)
class Data:
    """What to learn from, and what to validate on; both are of one kind."""

    train: Layout
    val: Layout

    def __str__(self) -> str:
        return f"{len(self.train.files)} {layouts.WORDS[self.train.kind]}, validated on {len(self.val.files)} others"


def find(folder: Path, task: Task, kinds: Sequence[layouts.Kind]) -> Data:
    """The data in `folder`/train and `folder`/val or /test; UsageError or ReadError where they cannot be used."""
    train = _part(folder, ("train",))
    val = _part(folder, _VALIDATION)
    for layout in (train, val):
        layouts.require_task(layout, task)
        if layout.kind not in kinds:
            wanted = " or ".join(layouts.WORDS[kind] for kind in kinds)
            raise UsageError(f"{layout}: this network learns from {wanted}", hint="give another folder")
    if train.kind != val.kind:
        raise UsageError(f"there are {train}, but {val}", hint="both parts must be of one kind")
    return Data(train, val)


def _part(folder: Path, names: Sequence[str]) -> Layout:
    for name in names:
        if (folder / name).is_dir():
            layout = layouts.find(folder / name)
            if layout is None:
                raise ReadError(f"{folder / name} holds nothing to learn from", hint=f"put there {layouts.ALL}")
            return layout
    raise ReadError(f"{folder} has no folder {' or '.join(names)}", hint="put data into DIR/train and DIR/val")


def faults(data: Data, read: Callable[[tuple[Path, ...]], object]) -> list[tuple[Path, HdrError]]:
    """Reads everything once; the files that cannot be used, each with the error that says why."""
    found = []
    for files in (*data.train.files, *data.val.files):
        try:
            read(files)
        except HdrError as error:
            found.append((files[0], error))
    return found
