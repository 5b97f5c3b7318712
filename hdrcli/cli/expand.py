"""`hdr expand`: ordinary pictures to HDR."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli.convert import begin_first, carry_out, plan, studied_sources
from hdrcli.cli.options import Ev, ModelName, Shared, with_shared

FORMATS = ("exr", "hdr", "uhdr", "avif", "jxl", "png", "tif")
SUFFIX = "_hdr"


class GainMap(StrEnum):
    """Channels of the gain map of an Ultra HDR JPEG."""

    RGB = "rgb"
    LUMINANCE = "luminance"


class Compression(StrEnum):
    """Of EXR files; dwaa alone loses something."""

    PIZ = "piz"
    ZIP = "zip"
    DWAA = "dwaa"
    NONE = "none"


@with_shared
def expand(
    shared: Shared,
    model: ModelName = None,
    gamma: Annotated[float, typer.Option(metavar="G", help="Above 1: more contrast.")] = 1.0,
    scaling: Annotated[float, typer.Option(metavar="S", help="Gain on the input; above 1 clips more.")] = 1.0,
    ev: Ev = 0.0,
    denoise: Annotated[
        float, typer.Option(min=0, max=1, help="Strength, for models that measure noise; 0 leaves the noise.")
    ] = 1.0,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "-f", "--format", metavar="|".join(FORMATS), help="Of the outputs, may be repeated; exr unless OUT says."
        ),
    ] = None,
    white_nits: Annotated[
        float, typer.Option(metavar="N", help="Luminance of 1.0 in cd/m2, in formats with an absolute scale.")
    ] = 203.0,
    half: Annotated[bool, typer.Option("--half/--float", help="16 or 32 bits per channel of EXR.")] = True,
    compression: Annotated[Compression, typer.Option(help="Of EXR; dwaa loses a little.")] = Compression.PIZ,
    pq: Annotated[bool, typer.Option("--pq", help="JPEG XL in 16-bit PQ, not in floats.")] = False,
    gain_map: Annotated[GainMap, typer.Option(help="Channels of Ultra HDR's gain map.")] = GainMap.RGB,
    map_step: Annotated[
        int, typer.Option(min=1, max=4, metavar="N", help="Ultra HDR: pixels a side for one of the gain map.")
    ] = 2,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="The inputs are frames of one clip: one response curve for all.")
    ] = False,
    xmp: Annotated[bool, typer.Option("--xmp", help="Ultra HDR: also describe the gain map as hdrgm XMP.")] = False,
) -> None:
    """Give ordinary pictures their light back: JPEG, PNG and others to linear HDR.

    Linear 1.0 in the output is the level at which the camera clipped. uhdr is a JPEG that looks as before on any screen
    and brighter on HDR screens: a JPEG input stays in it as it is, with a gain map (ISO 21496-1) added.

    Without -o, the output of NAME.jpg is NAME_hdr.exr beside it; with no input named, stdin goes to stdout.
    """
    from hdrcli import codecs
    from hdrcli.image import Transfer

    def accepts(path: Path) -> bool:
        name = codecs.format_of(path)
        return name is not None and codecs.FORMATS[name].holds == Transfer.SRGB

    jobs, chosen = plan(shared, suffix=SUFFIX, formats=FORMATS, names=formats, accepts=accepts)
    with shared.decoders(warm=codecs.module_for(jobs[0].source)) as decoders:
        begin_first(shared, jobs, decoders, codecs.read_encoded)
        from hdrcli.tasks.common import model_for
        from hdrcli.tasks.expand import Expansion, check_settings

        ready = model_for("expand", model)
        check_settings(ready, gamma, scaling, ev, denoise, white_nits)
        way = Expansion(
            model=ready,
            gamma=gamma,
            scaling=scaling,
            ev=ev,
            denoise=denoise,
            white_nits=white_nits,
            half=half and {*chosen} <= {"exr", codecs.ULTRA_HDR},
            compute=shared.compute(),
        )
        if sequence:
            way = way.steady([decoders.read(way.reader, source) for source in studied_sources(jobs)])
        options = codecs.WriteOptions(
            half=half,
            pq=pq,
            compression=compression.value,
            metadata=not shared.no_metadata,
            map_step=map_step,
            map_channels=3 if gain_map is GainMap.RGB else 1,
            map_xmp=xmp,
        )
        carry_out(shared, jobs, way, decoders, formats=chosen, options=options)
