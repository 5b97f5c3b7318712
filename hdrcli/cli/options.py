"""The options that develop and expand share, each defined once, and what they mean together."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from hdrcli import files
from hdrcli.errors import UsageError
from hdrcli.limits import MOST_PIXELS

if TYPE_CHECKING:
    from hdrcli.cluster import Cluster
    from hdrcli.infer import Compute
    from hdrcli.isolation import Decoders

STREAM = str(files.STREAM)

_UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}

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


class Backend(StrEnum):
    """What carries the files of a batch."""

    LOCAL = "local"
    DASK = "dask"
    RAY = "ray"


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The options that develop and expand share, as they were given."""

    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Files, folders, @FILE for a list of them, or - for standard input."),
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
    null: Annotated[
        bool, typer.Option("-0", "--null", help="Paths in lists end in a zero byte, as of find -print0.", **_FILES)
    ] = False
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Search sub-folders.", **_FILES)] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.", **_FILES)] = False
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write OUT_preview.png, for any screen.", **_FILES)
    ] = False
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Leave EXIF and the like out.", **_FILES)] = False
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="N", help="Refuse larger inputs by what their headers claim.", **_FILES)
    ] = MOST_PIXELS
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first file that fails.", **_RUN)] = False
    max_failures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop once N files have failed.", **_RUN)
    ] = None
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Files read and written side by side.", **_RUN)
    ] = None
    backend: Annotated[Backend, typer.Option(help="This machine, or the workers of a cluster.", **_RUN)] = Backend.LOCAL
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of Dask, for --backend dask.", **_RUN)] = (
        None
    )
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of Ray, for --backend ray; else this machine's.", **_RUN)
    ] = None
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where the network runs.", **_RUN)] = (
        "auto"
    )
    precision: Annotated[Precision, typer.Option(help="Of the network's arithmetic.", **_RUN)] = Precision.AUTO
    tile: Annotated[
        int | None, typer.Option(min=64, metavar="N", help="Side of a tile; smaller takes less memory.", **_RUN)
    ] = None
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tiles that run together; else what suits.", **_RUN)
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="For a picture on the device, such as 4G; else 60 % of what is free.", **_RUN
        ),
    ] = None
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: pays where many pictures are alike.", **_RUN)
    ] = False
    json: Annotated[bool, typer.Option("--json", help="One JSON object per file on stdout.", **_REPORT)] = False
    list_failed: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the inputs that failed, for a retry with @FILE; with zero bytes where a name holds a line end.",
            **_REPORT,
        ),
    ] = None
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what failed.", **_REPORT)] = False
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say what is done to each file.", **_REPORT)] = False

    def compute(self) -> "Compute":
        from hdrcli.infer import Compute

        return Compute(
            device=self.device,
            precision=self.precision.value,
            tile=self.tile,
            batch=self.batch,
            memory=None if self.memory is None else size_in_bytes(self.memory),
            compiled=self.compiled,
        )

    def decoders(self, warm: str) -> "Decoders":
        """Processes that read the inputs; the first is started, and imports a module, while other things are done."""
        from hdrcli.isolation import Decoders, Limits

        return Decoders(Limits(pixels=self.max_pixels), warm=[warm])

    def cluster(self) -> "AbstractContextManager[Cluster | None]":
        """The cluster to use, or None for this machine alone; UsageError for options that do not belong together."""
        wrong = {
            "--scheduler": self.scheduler is not None and self.backend is not Backend.DASK,
            "--address": self.address is not None and self.backend is not Backend.RAY,
            "--jobs": self.jobs is not None and self.backend is not Backend.LOCAL,
        }
        for option in (option for option, given in wrong.items() if given):
            raise UsageError(f"{option} does not go with --backend {self.backend}", hint=f"leave {option} out")
        if self.backend is Backend.LOCAL:
            return nullcontext()
        from hdrcli import cluster

        if self.backend is Backend.RAY:
            return cluster.ray(self.address or "auto")
        if self.scheduler is None:
            raise UsageError("--backend dask needs the address of its scheduler", hint="--scheduler tcp://HOST:8786")
        return cluster.dask(self.scheduler)

    def enough(self, failures: int) -> bool:
        """Whether the run is to stop after so many failures."""
        most = 1 if self.fail_fast else self.max_failures
        return most is not None and failures >= most

    def input_names(self) -> list[str]:
        """The inputs, those of lists included; standard input where none is named and something is piped in."""
        lists = [name[1:] for name in self.inputs or () if name.startswith("@")]
        lists += [self.files_from] if self.files_from is not None else []
        named = [name for name in self.inputs or () if not name.startswith("@")]
        if STREAM in lists and (STREAM in named or lists.count(STREAM) > 1):
            raise UsageError("standard input cannot be both the list and a picture", hint="put the list into a file")
        names = [frame for name in [*named, *self._listed(lists)] for frame in files.frames(name)]
        if names or lists:
            return names
        if sys.stdin.isatty():
            raise UsageError("there is no input", hint="name files or folders, or pipe a picture in")
        return [STREAM]

    def _listed(self, lists: Sequence[str]) -> Iterator[str]:
        for name in lists:
            data = sys.stdin.buffer.read() if name == STREAM else files.content(Path(name))
            yield from files.read_list(data, null=self.null)


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


def size_in_bytes(text: str) -> int:
    """A size such as 4G, 1.5G, 800M or 2000000000, with K, M, G and T for powers of 1024."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in _UNITS else (text, "")
    try:
        size = int(float(number) * 1024 ** _UNITS.get(unit, 0))
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise UsageError(f"{text!r} is no size of memory", hint="give one such as 4G or 800M")
    return size
