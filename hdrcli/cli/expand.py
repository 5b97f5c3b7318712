"""`hdr expand`: ordinary pictures to HDR."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrcli.cli.convert import carry_out, plan
from hdrcli.cli.options import Ev, ModelName, Shared, with_shared

if TYPE_CHECKING:
    from hdrcli.image import Image
    from hdrcli.tasks.common import Made

FORMATS = ("exr", "hdr")
SUFFIX = "_hdr"


class Compression(StrEnum):
    """Of EXR files; dwaa alone loses something."""

    ZIP = "zip"
    PIZ = "piz"
    DWAA = "dwaa"
    NONE = "none"


@with_shared
def expand(
    shared: Shared,
    model: ModelName = None,
    gamma: Annotated[float, typer.Option(metavar="G", help="Above 1: more contrast.")] = 1.0,
    scaling: Annotated[float, typer.Option(metavar="S", help="Gain on the input; above 1 clips more.")] = 1.0,
    ev: Ev = 0.0,
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="|".join(FORMATS), help="Of the outputs; exr unless OUT says otherwise."),
    ] = None,
    half: Annotated[bool, typer.Option("--half/--float", help="16 or 32 bits per channel of EXR.")] = True,
    compression: Annotated[Compression, typer.Option(help="Of EXR; dwaa loses a little.")] = Compression.ZIP,
) -> None:
    """Give ordinary pictures their light back: JPEG, PNG and others to linear HDR.

    Linear 1.0 in the output is the level at which the camera clipped.

    Without -o, the output of NAME.jpg is NAME_hdr.exr beside it; with no input named, stdin goes to stdout.
    """
    from hdrcli import codecs
    from hdrcli.image import Transfer

    def accepts(path: Path) -> bool:
        name = codecs.format_of(path)
        return name is not None and codecs.FORMATS[name].holds == Transfer.SRGB

    jobs, chosen = plan(shared, suffix=SUFFIX, formats=FORMATS, format_name=format_name, accepts=accepts)
    from hdrcli.tasks.common import model_for
    from hdrcli.tasks.expand import check_settings, expand_image, require_encoded

    check_settings(gamma, scaling, ev)
    ready = model_for("expand", model)

    def decode(source: Path | bytes) -> "Image":
        return require_encoded(codecs.read(source))

    def process(image: "Image") -> "Made":
        return expand_image(ready, image, gamma=gamma, scaling=scaling, ev=ev, compute=shared.compute())

    options = codecs.WriteOptions(half=half, compression=compression.value, metadata=not shared.no_metadata)
    carry_out(shared, jobs, ready, decode, process, format_name=chosen, options=options)
