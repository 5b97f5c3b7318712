"""`hdr train`: weights of one's own."""

import re
import time
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hdrcli.batch import Outcome
from hdrcli.cli import render, traintable
from hdrcli.cli.develop import Look
from hdrcli.errors import HdrError, UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600}
_WHAT = {"rich_help_panel": "What is trained"}
_RUN = {"rich_help_panel": "How it runs"}


class Precision(StrEnum):
    """Of the forward pass."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def train(
    net: Annotated[str, typer.Argument(metavar="NET", help="The network, such as lumen, lumenraw or hdrisp.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data in DIR/train and DIR/val or DIR/test.", **_WHAT)],
    name: Annotated[str, typer.Option("-o", "--output", metavar="NAME", help="Of the new model.", **_WHAT)],
    recipe: Annotated[
        str | None, typer.Option(metavar="FILE|NAME", help="Stages and losses; the network's own recipe.", **_WHAT)
    ] = None,
    stage: Annotated[str | None, typer.Option(metavar="NAME", help="The only stage to train.", **_WHAT)] = None,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Begin with the weights of a model.", **_WHAT)
    ] = None,
    vgg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="torchvision's VGG weights, for perceptual losses.", **_WHAT)
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 90m, 2h or 300s; 60m without --steps.", **_RUN)
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of all stages together.", **_RUN)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue where NAME stopped.", **_RUN)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of that name.", **_RUN)] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random; 0.", **_RUN)] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where it runs.", **_RUN)] = "auto",
    precision: Annotated[Precision | None, typer.Option(help="Of the forward pass; the recipe's.", **_RUN)] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Processes that make samples.", **_RUN)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only read all data once and list what is unusable.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what is wrong.")] = False,
) -> None:
    """Train a network on data of your own, by a recipe; `hdr train prepare` makes such data of RAW files.

    The result is a model like any other: `hdr expand --model NAME` or `hdr develop --model NAME` uses it at once.
    """
    seconds = None if time_limit is None else duration(time_limit)
    from hdrcli.tasks import train as task

    order = task.Order(
        net=net,
        data=data,
        name=name,
        recipe=recipe,
        stage=stage,
        begin=begin,
        vgg=vgg,
        seconds=seconds,
        steps=steps,
        seed=seed,
        device=device,
        precision=precision.value if precision else None,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
    )
    if check:
        _check(task.faults(order))
        return
    try:
        with traintable.watching(quiet=quiet) as watch:
            card = task.train(order, watch=watch)
    except KeyboardInterrupt:
        render.say(f"stopped; everything is saved in {order.place}: go on with --resume")
        raise
    if pace := card.training.get("samples_per_second"):
        share = card.training["share_of_ceiling"]
        render.say(f"{pace} samples/s, {share:.0%} of what plain convolutions reach on this machine")
    render.say(f"{card.name} is ready: {card.weights}")


def prepare(
    source: Annotated[Path, typer.Argument(metavar="RAWDIR", help="A folder of RAW files.")],
    folder: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Gets train/ and test/ with the pairs.")
    ],
    look: Annotated[Look, typer.Option(help="Tone mapping of the pictures to be learned.")] = Look.FUSION,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Files read and written side by side.")] = 2,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what is wrong.")] = False,
) -> None:
    """Make pairs for `hdr train hdrisp` of RAW files: a 10-bit mosaic and the tone-mapped picture of each.

    Every tenth file goes to DIR/test, the others to DIR/train. Pairs that are there are kept.
    """
    from threading import Event

    from hdrcli.isolation import Decoders
    from hdrcli.tasks import prepare as task

    planned = task.plan(source, folder)
    seen: list[Outcome] = []
    start = time.perf_counter()
    with (
        Decoders(warm=["hdrcli.raw"]) as decoders,
        closing(task.prepare(planned, look.value, decoders, workers=jobs, stopped=Event())) as outcomes,
        render.progress(len(planned), shown=not quiet) as tick,
    ):
        for outcome in outcomes:
            tick()
            seen.append(outcome)
            render.outcome(outcome, json=False, quiet=quiet, verbose=False)
    if not quiet:
        render.say(f"pairs in {folder}: {render.summary(seen, time.perf_counter() - start)}")
    if any(outcome.status == "failed" for outcome in seen):
        raise typer.Exit(1)


def _check(faults: "list[tuple[Path, HdrError]]") -> None:
    """Says which files cannot be used; exit code 1 if there are any."""
    for path, error in faults:
        render.failed_file(path, error.message, error.hint)
    render.say(f"{len(faults)} files cannot be used" if faults else "all data can be used")
    if faults:
        raise typer.Exit(1)


def duration(text: str) -> float:
    """Seconds of a time such as 90m, 2h or 300s; UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise UsageError(f"{text!r} is no time", hint="give a number and a unit, such as 90m, 2h or 300s")
    return float(match[1]) * _UNITS[match[2]]
