"""The command `hdr`: its sub-commands, and the only boundary where an error becomes a message and an exit code."""

import gc
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hdrcli import __version__
from hdrcli.cli import bench, demo, develop, doctor, evaluate, expand, inspect, models, render, train
from hdrcli.errors import HdrError


class TwoWords(TyperGroup):
    """A group in which the name of a command may be two words, where the first alone is one, too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        words = " ".join(args[:2])
        if words in self.commands:
            return words, self.commands[words], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=TwoWords,
    help="Gives pictures their light back: RAW to finished pictures, 8-bit pictures to HDR, by learned models.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command(no_args_is_help=False)(develop.develop)
app.command(no_args_is_help=False)(expand.expand)
app.command()(train.train)
app.command("train prepare")(train.prepare)
app.command("eval")(evaluate.evaluate)
app.command()(inspect.inspect)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(bench.bench)
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        render.data(f"hdr {__version__}")
        raise typer.Exit


@app.callback()
def hdr(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Settles what comes before every sub-command."""


def main() -> None:
    """Runs the command line; what a user can mend becomes a sentence, a hint and an exit code."""
    gc.set_threshold(100_000)  # what imports allocate, they keep
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads wait busily, beside those of torch
    try:
        app(prog_name="hdr")
    except HdrError as error:
        render.failure(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
