"""The options that develop and expand share, each defined once, and what they mean together."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from hdrcli import files
from hdrcli.errors import ReadError, UsageError

if TYPE_CHECKING:
    from hdrcli.infer import Compute

_FILES = {"rich_help_panel": "Files"}
_RUN = {"rich_help_panel": "How it runs"}
_REPORT = {"rich_help_panel": "What it says"}

ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="As `hdr models list` names it; else the default.")
]
Ev = Annotated[float, typer.Option("--ev", metavar="STOPS", help="Exposure of the result.")]


class Precision(StrEnum):
    """Of a network's arithmetic."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The options that develop and expand share, as they were given."""

    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT", help="Files, folders, or - for standard input.")
    ] = None
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="OUT", help="A folder, a file for one input, or - for standard output.", **_FILES
        ),
    ] = None
    files_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Take inputs from a list, one path a line; - for stdin.", **_FILES),
    ] = None
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Search sub-folders.", **_FILES)] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.", **_FILES)] = False
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write OUT_preview.png, for any screen.", **_FILES)
    ] = False
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Leave EXIF and the like out.", **_FILES)] = False
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Files read and written side by side.", **_RUN)
    ] = None
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where the network runs.", **_RUN)] = (
        "auto"
    )
    precision: Annotated[Precision, typer.Option(help="Of the network's arithmetic.", **_RUN)] = Precision.AUTO
    tile: Annotated[
        int | None, typer.Option(min=64, metavar="N", help="Side of a tile; smaller takes less memory.", **_RUN)
    ] = None
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Tiles that run together.", **_RUN)] = 1
    json: Annotated[bool, typer.Option("--json", help="One JSON object per file on stdout.", **_REPORT)] = False
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what failed.", **_REPORT)] = False
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say what is done to each file.", **_REPORT)] = False

    def compute(self) -> "Compute":
        from hdrcli.infer import Compute

        return Compute(device=self.device, precision=self.precision.value, tile=self.tile, batch=self.batch)

    def input_names(self) -> list[str]:
        """The inputs, those of the list included; standard input where none is named and something is piped in."""
        names = [frame for name in [*(self.inputs or []), *self._listed()] for frame in files.frames(name)]
        if names or self.files_from is not None:
            return names
        if sys.stdin.isatty():
            raise UsageError("there is no input", hint="name files or folders, or pipe a picture in")
        return [str(files.STREAM)]

    def _listed(self) -> list[str]:
        if self.files_from is None:
            return []
        if self.files_from != str(files.STREAM):
            return files.read_list(_text(Path(self.files_from)))
        if str(files.STREAM) in (self.inputs or []):
            raise UsageError("standard input cannot be both the list and a picture", hint="put the list into a file")
        return files.read_list(sys.stdin.read())


def with_shared(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command all options of Shared on the command line, collected into its one argument `shared`."""
    hints = get_type_hints(Shared, include_extras=True)
    common = [
        Parameter(item.name, Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name])
        for item in fields(Shared)
    ]
    own = [parameter for parameter in signature(command).parameters.values() if parameter.name != "shared"]

    @wraps(command)
    def collected(**values: Any) -> None:
        command(shared=Shared(**{item.name: values.pop(item.name) for item in common}), **values)

    parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in own] + common
    collected.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    collected.__annotations__ = {p.name: p.annotation for p in parameters}
    return collected


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"the list {path} cannot be read: {error}", hint="give a text file, one path a line") from error
