"""`hdr bench`: how fast networks run here."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli import render
from hdrcli.cli.options import Precision


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A model, or a network for random weights; repeatable; else the defaults."),
    ] = None,
    megapixels: Annotated[
        list[float] | None, typer.Option("--megapixels", metavar="N", help="Size; repeatable; else 1 and 12.")
    ] = None,
    precision: Annotated[list[Precision] | None, typer.Option(help="Repeatable; else fp32 and bf16.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where the network runs.")] = "auto",
    tile: Annotated[int | None, typer.Option(min=64, metavar="N", help="Side of a tile.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Tiles that run together.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per row on stdout.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the shares of the ceiling.")] = None,
) -> None:
    """Measure networks: megapixels a second, share of the best convolution this machine can do, memory.

    Other programs that run at the same time make all numbers worse, the ceiling among them.
    """
    from hdrcli.cards import default_model
    from hdrcli.infer import Compute
    from hdrcli.tasks import bench as task

    rows = []
    if not json:
        render.data(
            f"{'model':<16}{'MP':>6}  {'device':<8}{'precision':<10}{'MP/s':>8}{'GFLOP/s':>9}{'ceiling':>9}"
            f"{'share':>7}{'memory':>10}{'tiles':>7}"
        )
    for row in task.bench(
        model or [default_model("develop"), default_model("expand")],
        megapixels or (1.0, 12.0),
        [one.value for one in precision or (Precision.FP32, Precision.BF16)],
        Compute(device=device, tile=tile, batch=batch),
    ):
        rows.append(row)
        if json:
            render.json_line(asdict(row))
        else:
            render.data(
                f"{row.model:<16}{row.megapixels:>6g}  {row.device:<8}{row.precision:<10}{row.speed:>8.2f}"
                f"{row.gflops:>9.0f}{row.ceiling:>9.0f}{row.share:>7.0%}{row.bytes / 2**20:>6.0f} MiB{row.tiles:>7}"
            )
    if plot is not None:
        task.plot(rows, plot)
