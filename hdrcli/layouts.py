"""The layouts of data sets, known by their folders: HDR scenes, LDR and HDR pairs, RAW and picture pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hdrcli import codecs, rawtypes
from hdrcli.cards import Task
from hdrcli.errors import UsageError

Kind = Literal["scenes", "ldr-hdr", "raw-picture"]

WORDS: Mapping[Kind, str] = {
    "scenes": "HDR scenes",
    "ldr-hdr": "LDR and HDR pairs",
    "raw-picture": "RAW and picture pairs",
}
ALL = "HDR scenes (.exr, .hdr), or the folders LDR and HDR, huawei_raw and canon, raw and groundtruth"

_HDR = (".exr", ".hdr")
_RAW_FOLDERS = (("huawei_raw", "canon"), ("raw", "groundtruth"))


@dataclass(frozen=True)
class Layout:
    """What a folder holds: scenes (one path each), or pairs of input and reference."""

    kind: Kind
    base: Path
    files: tuple[tuple[Path, ...], ...]

    def __str__(self) -> str:
        return f"{len(self.files)} {WORDS[self.kind]} in {self.base}"


def find(base: Path) -> Layout | None:
    """What `base` holds, None for none of these; UsageError where pairs are not whole."""
    if not base.is_dir():
        return None
    if (base / "LDR").is_dir() and (base / "HDR").is_dir():
        return Layout("ldr-hdr", base, _in_order(base / "LDR", base / "HDR"))
    for raws, pictures in _RAW_FOLDERS:
        if (base / raws).is_dir() and (base / pictures).is_dir():
            return Layout("raw-picture", base, _by_name(base / raws, base / pictures))
    scenes = sorted(path for path in base.iterdir() if path.suffix.lower() in _HDR)
    return Layout("scenes", base, tuple((path,) for path in scenes)) if scenes else None


def require_task(layout: Layout, task: Task) -> None:
    """UsageError for pairs that models of `task` have no use for."""
    fits: Task | None = {"ldr-hdr": "expand", "raw-picture": "develop"}.get(layout.kind)  # type: ignore[assignment]
    if fits not in (None, task):
        raise UsageError(
            f"{WORDS[layout.kind]} are for models that {fits}, not {task}", hint="name other models or other data"
        )


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, and no preview of one."""
    return path.is_file() and codecs.format_of(path) is not None and not path.stem.endswith("_preview")


def require_partners(first: Mapping[str, Path], second: Mapping[str, Path]) -> None:
    """UsageError that names the files, by stem, that only one of two sets holds."""
    lonely = [{**first, **second}[stem].name for stem in sorted(first.keys() ^ second.keys())]
    if lonely:
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise UsageError(
            f"{len(lonely)} pictures have no partner of the same name: {', '.join(lonely[:5])}{more}",
            hint="pairs are made by name without ending; remove or add what is missing",
        )


def _in_order(inputs: Path, references: Path) -> tuple[tuple[Path, ...], ...]:
    first, second = (sorted(p for p in folder.iterdir() if is_picture(p)) for folder in (inputs, references))
    if not first or len(first) != len(second):
        raise UsageError(
            f"{inputs} holds {len(first)} pictures and {references} {len(second)}",
            hint="each needs its partner: pairs are made in the order of names",
        )
    return tuple(zip(first, second, strict=True))


def _by_name(raws: Path, pictures: Path) -> tuple[tuple[Path, ...], ...]:
    suffixes = {*rawtypes.SUFFIXES, ".png"}
    first = {path.stem: path for path in sorted(raws.iterdir()) if path.suffix.lower() in suffixes}
    second = {path.stem: path for path in sorted(pictures.iterdir()) if is_picture(path)}
    if not first:
        raise UsageError(f"{raws} holds no RAW file", hint="mosaic PNGs and camera RAW files are read")
    require_partners(first, second)
    return tuple((path, second[stem]) for stem, path in first.items())
