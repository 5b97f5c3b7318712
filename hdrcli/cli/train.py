"""`hdr train`: weights of one's own."""

import logging
import re
from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli import render
from hdrcli.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600}


def train(
    net: Annotated[str, typer.Argument(metavar="NET", help="The network: lumen or lumenraw.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="HDR scenes (.exr, .hdr) in DIR/train and DIR/val.")],
    name: Annotated[str, typer.Option("-o", "--output", metavar="NAME", help="What the new model is called.")],
    time_limit: Annotated[str, typer.Option(metavar="TIME", help="Such as 90m, 2h or 300s.")] = "60m",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Train one of the two small networks on simulated pictures of HDR scenes.

    The result is a model like any other: `hdr expand --model NAME` or `hdr develop --model NAME` uses it at once.
    """
    seconds = duration(time_limit)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from hdrcli.tasks import train as task

    card = task.train(net, data=data, name=name, seconds=seconds, seed=seed)
    render.say(f"{card.name} is ready: {card.weights}")


def duration(text: str) -> float:
    """Seconds of a time such as 90m, 2h or 300s; UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise UsageError(f"{text!r} is no time", hint="give a number and a unit, such as 90m, 2h or 300s")
    return float(match[1]) * _UNITS[match[2]]
