"""`hdr develop`: RAW files to finished pictures."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli.convert import begin_first, carry_out, plan, studied_sources
from hdrcli.cli.options import Ev, ModelName, Shared, with_shared
from hdrcli.errors import UsageError

FORMATS = ("jpg", "png", "tif", "webp", "avif", "jxl")
SUFFIX = "_developed"


class Balance(StrEnum):
    """Where the white balance comes from."""

    CAMERA = "camera"
    AS_SHOT = "as-shot"
    AUTO = "auto"
    DAYLIGHT = "daylight"


class Feed(StrEnum):
    """How sensor data are given to the network."""

    CANONICAL = "canonical"
    NATIVE = "native"


class Bits(StrEnum):
    """Per channel of PNG and TIFF."""

    EIGHT = "8"
    SIXTEEN = "16"


class Look(StrEnum):
    """How linear light becomes a picture; the names of `tonemap.OPERATORS`."""

    FUSION = "fusion"
    REINHARD = "reinhard"
    FILMIC = "filmic"
    NONE = "none"


@with_shared
def develop(
    shared: Shared,
    model: ModelName = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "-f", "--format", metavar="|".join(FORMATS), help="Of the outputs, may be repeated; jpg unless OUT says."
        ),
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG, WebP, AVIF and JPEG XL.")] = 95,
    ev: Ev = 0.0,
    wb: Annotated[
        Balance,
        typer.Option(help="White balance; camera is as-shot, mended where a large warm surface shows a cast."),
    ] = Balance.CAMERA,
    sensor: Annotated[Feed, typer.Option(help="How sensor data are fed, as the weights want it.")] = Feed.CANONICAL,
    denoise: Annotated[
        float, typer.Option(min=0, max=4, help="Strength, for models that measure noise; 0 leaves the noise.")
    ] = 1.0,
    look: Annotated[
        Look | None, typer.Option(help="Tone mapping, for models that give linear light; fusion unless named.")
    ] = None,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="The inputs are frames of one clip: one exposure for all.")
    ] = False,
    bits: Annotated[Bits, typer.Option(help="Per channel; 16 in PNG and TIFF.")] = Bits.EIGHT,
    hdr: Annotated[
        bool, typer.Option("--hdr", help="Write JPEG as Ultra HDR: with the light of highlights in a gain map.")
    ] = False,
) -> None:
    """Develop RAW files to finished pictures.

    Without -o, the output of NAME.dng is NAME_developed.jpg beside it; with no input named, stdin goes to stdout.
    """
    from hdrcli import codecs, rawtypes

    suffixes = {*rawtypes.SUFFIXES, ".png"} if sensor is Feed.NATIVE else rawtypes.SUFFIXES

    def accepts(path: Path) -> bool:
        return path.suffix.lower() in suffixes

    jobs, chosen = plan(shared, suffix=SUFFIX, formats=FORMATS, names=formats, accepts=accepts)
    if bits is Bits.SIXTEEN and not set(chosen) <= {"png", "tif"}:
        raise UsageError(f"16 bits do not fit into {chosen[0]}", hint="use --format png or tif")
    if hdr and "jpg" not in chosen:
        raise UsageError(f"--hdr is for JPEG, not for {chosen[0]}", hint="add --format jpg")
    chosen = [codecs.ULTRA_HDR if hdr and name == "jpg" else name for name in chosen]
    with shared.decoders(warm="hdrcli.raw") as decoders:
        from hdrcli import raw

        begin_first(shared, jobs, decoders, raw.reader(wb.value, sensor.value))
        from hdrcli.tasks.common import model_for
        from hdrcli.tasks.develop import Development, check_settings, clip_of

        ready = model_for("develop", model)
        check_settings(ready, ev, denoise, look)
        if hdr and ready.spec.gives != "linear":
            raise UsageError(
                f"{ready.card.name} gives finished pictures, and no light for --hdr", hint="leave --hdr out"
            )
        way = Development(
            model=ready,
            sensor=sensor.value,
            balance=wb.value,
            ev=ev,
            denoise=denoise,
            look=look,
            bits=16 if bits is Bits.SIXTEEN else 8,
            compute=shared.compute(),
        )
        if sequence:
            studied = [decoders.read(way.reader, source) for source in studied_sources(jobs)]
            way = replace(way, clip=clip_of(studied, wb.value, look))
        options = codecs.WriteOptions(quality=quality, bits=int(bits), metadata=not shared.no_metadata)
        carry_out(shared, jobs, way, decoders, formats=chosen, options=options)
