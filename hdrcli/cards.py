"""Cards: what is known of each set of weights, and where on this machine it lies.

A card is `<name>.toml`, its weights are `<name>.safetensors` beside it. A card may wait for its weights: then it says
where to get them. Nothing here imports torch, so listing models is quick.
"""

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs
import tomli_w

from hdrcli.errors import UsageError, WeightsError
from hdrcli.files import atomic_write

Task = Literal["expand", "develop"]

FOLDER_VARIABLE = "HDR_MODELS_DIR"
SUFFIX = ".safetensors"

_KINDS: Mapping[str, type] = {
    "name": str,
    "net": str,
    "task": str,
    "file": str,
    "sha256": str,
    "licence": str,
    "origin": str,
    "howto": str,
    "sources": list,
    "build": dict,
    "training": dict,
    "scores": dict,
    "published": dict,
    "sample": dict,
}
_WORDS: Mapping[type, str] = {str: "a string", list: "a list", dict: "a table"}
_REQUIRED = ("name", "net", "task", "file", "sha256", "licence", "origin", "build")

_DEFAULTS: Mapping[str, str] = {"expand": "lumen", "develop": "lumenraw"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts of one set of weights.

    name: as in `--model NAME`, and the stem of both files. net: the file in `nets/` that the weights belong to.
    file: the weights, in the card's own folder. sha256: of that file, "" while the weights are not there.
    build: keyword arguments of the network. licence, origin: whose weights they are and how they came to be.
    training: the effective recipe. scores: measured numbers, each under the name of its protocol.
    published: the authors' own files by name, with their sha256 or "" where none is known.
    sample: a few output numbers for a fixed test picture, see `hdrcli.sample`.
    sources: mirrors (http, https) of the published file where there is one, else of `file` itself.
    howto: steps to get and import the weights, "" if none. folder: where the card lies.
    """

    name: str
    net: str
    task: Task
    file: str
    sha256: str
    build: dict[str, Any]
    licence: str
    origin: str
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    sample: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    howto: str = ""
    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / self.file

    @property
    def path(self) -> Path:
        """The card itself."""
        return self.folder / f"{self.name}.toml"

    @property
    def ready(self) -> bool:
        """True where the weights lie beside the card; their hash is checked when they are loaded."""
        return bool(self.sha256) and self.weights.is_file()


def default_model(task: Task) -> str:
    """The model that a task uses when none is named."""
    return _DEFAULTS[task]


def folders() -> tuple[Path, ...]:
    """Where cards are looked for, first found first used: $HDR_MODELS_DIR, the user's data folder, the shipped ones."""
    return (*own_folders(), shipped_folder())


def own_folders() -> tuple[Path, ...]:
    """The folders that belong to the user; new weights go into the first."""
    named = os.environ.get(FOLDER_VARIABLE)
    data = platformdirs.user_data_path("hdrcli", appauthor=False) / "models"
    return (Path(named).expanduser(), data) if named else (data,)


def shipped_folder() -> Path:
    """The models inside an installed package, or those of the source checkout that the package runs from."""
    package = Path(__file__).parent
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def paths() -> dict[str, Path]:
    """The files of all cards by name; the first folder that has one wins."""
    paths = (path for folder in reversed(folders()) for path in folder.glob("*.toml"))
    return {path.stem: path for path in paths if _NAME.fullmatch(path.stem)}


def cards() -> dict[str, Card]:
    """All cards by name, in alphabetical order."""
    return {name: read_card(path) for name, path in sorted(paths().items())}


def known(name: str) -> Card | None:
    """The card called `name`, with or without its weights, if there is one."""
    path = paths().get(name)
    return read_card(path) if path else None


def lookup(name: str) -> Card:
    """The card called `name`, with or without its weights; otherwise WeightsError with names that come close."""
    card = known(name)
    if card:
        return card
    names = sorted(paths())
    close = [other for other in names if name and other.startswith(name)] or difflib.get_close_matches(name, names)
    hint = f"did you mean {' or '.join(close)}?" if close else f"models: {', '.join(names) or 'none'}"
    raise WeightsError(f"there is no model named {name!r}", hint=hint)


def find(name: str) -> Card:
    """The card called `name`, whose weights are there; otherwise WeightsError with the steps to get them."""
    return require_ready(lookup(name))


def require_ready(card: Card) -> Card:
    """The card itself, if its weights are there; otherwise WeightsError with the steps to get them."""
    if not card.ready:
        raise WeightsError(f"the weights of {card.name} are not on this machine", hint=steps(card))
    return card


def steps(card: Card) -> str:
    """What to do to get the weights of a card, as text for people."""
    pull = f"run: hdr models pull {card.name}" if card.sources else ""
    return "\n".join(part for part in (pull, card.howto.strip()) if part) or "nobody is known to publish them"


def check_name(name: str) -> None:
    """UsageError unless `name` can be a file's stem everywhere: letters, digits, dot, dash, underscore."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name!r} cannot be the name of a model",
            hint="use 1 to 64 letters, digits, dots, dashes and underscores, starting with a letter or a digit",
        )


def digest(path: Path) -> str:
    """SHA-256 of a file, as 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(name: str) -> Card:
    """Deletes a card of the user's own, and its weights; returns the card that it was."""
    card = lookup(name)
    if card.folder not in own_folders():
        raise UsageError(
            f"{name} comes with hdrcli and is not removed",
            hint="only models in your own folders are; hdr models path lists them",
        )
    card.path.unlink()
    card.weights.unlink(missing_ok=True)
    return card


def write_card(card: Card) -> Path:
    """Writes `<name>.toml` into the card's folder, in one step; returns its path."""
    table = {key: list(value) if key == "sources" else value for key, value in _table(card).items()}
    full = {key: value for key, value in table.items() if value or key in _REQUIRED}
    scalars_first = dict(sorted(full.items(), key=lambda item: isinstance(item[1], dict)))
    with atomic_write(card.path) as part:
        part.write_text(tomli_w.dumps(scalars_first, multiline_strings=True), encoding="utf-8")
    return card.path


def read_card(path: Path) -> Card:
    """Reads and checks a card; WeightsError names the file and the field that is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad_card(path, f"cannot be read: {error}") from error
    for key in table:
        if key not in _KINDS:
            raise _bad_card(path, f"has an unknown field {key!r}")
    for key in _REQUIRED:
        if key not in table:
            raise _bad_card(path, f"lacks the field {key!r}")
    for key, value in table.items():
        if not isinstance(value, _KINDS[key]):
            raise _bad_card(path, f"has a field {key!r} that is not {_WORDS[_KINDS[key]]}")
    for key, wrong in _faults(table, path).items():
        if wrong:
            raise _bad_card(path, f"has a wrong {key!r}: {table[key]!r}")
    return Card(**{**table, "sources": tuple(table.get("sources", ()))}, folder=path.parent)


def _table(card: Card) -> dict[str, Any]:
    return {item.name: getattr(card, item.name) for item in fields(card) if item.name in _KINDS}


def _faults(table: Mapping[str, Any], path: Path) -> dict[str, bool]:
    """By field: whether its value makes no sense, given that its type is right."""
    sources, published, sample = (table.get(key, {}) for key in ("sources", "published", "sample"))
    return {
        "name": table["name"] != path.stem,
        "net": not table["net"].isidentifier(),
        "task": table["task"] not in get_args(Task),
        "file": table["file"] != table["name"] + SUFFIX,
        "sha256": not _is_sha256(table["sha256"]),
        "sources": not all(isinstance(url, str) and url.startswith(("https://", "http://")) for url in sources),
        "published": not all(_is_sha256(value) for value in published.values()),
        "sample": bool(sample) and not _is_sample(sample),
    }


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and (not value or bool(_SHA256.fullmatch(value)))


def _is_sample(sample: Mapping[str, Any]) -> bool:
    if sample.keys() != {"tolerance", "mean", "values"} or not isinstance(sample["tolerance"], float):
        return False
    rows = [sample["mean"], *sample["values"]] if isinstance(sample["values"], list) else [None]
    return all(isinstance(row, list) and len(row) == 3 and all(isinstance(x, float) for x in row) for row in rows)


def _bad_card(path: Path, what: str) -> WeightsError:
    return WeightsError(f"the card {path} {what}", hint="mend or delete that file")
