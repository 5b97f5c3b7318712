"""`hdr inspect`: what is in a picture."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrcli.cli import render

if TYPE_CHECKING:
    from hdrcli.tasks.inspect import Report


def inspect(
    sources: Annotated[list[Path], typer.Argument(metavar="FILE", help="Pictures, HDR and RAW files.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object per file.")] = False,
) -> None:
    """Say what is in a picture: size, type, dynamic range, clipped share, metadata."""
    from hdrcli.isolation import Decoders
    from hdrcli.tasks.inspect import inspect as look

    failed = False
    with Decoders() as decoders:
        for report in look(sources, decoders, workers=os.cpu_count() or 1):
            failed |= bool(report.error)
            if json:
                render.json_line(asdict(report))
            elif report.error:
                render.failed_file(Path(report.source), report.error, report.hint)
            else:
                render.data(_text(report))
    if failed:
        raise typer.Exit(1)


def _text(report: "Report") -> str:
    bits = f", {report.bits} bits" if report.bits else ""
    profile = f", {report.profile}" if report.profile else ""
    lines = [report.source, f"  {report.format}, {report.kind}, {report.width} x {report.height}{bits}{profile}"]
    if report.stops is not None:
        lines.append(f"  dynamic range {report.stops:.1f} stops, brightest value {report.peak:.3g}")
    if report.clipped is not None:
        lines.append(f"  clipped {report.clipped:.2%}")
    lines += [f"  {name}: {value}" for name, value in report.details.items()]
    lines += [f"  note: {note}" for note in report.notes]
    return "\n".join(lines)
