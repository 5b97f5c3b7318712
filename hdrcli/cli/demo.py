"""`hdr demo`: something to look at without a camera."""

from pathlib import Path
from typing import Annotated

import typer

from hdrcli.cli import render


def demo(
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the pictures go.")] = Path("demo"),
) -> None:
    """Render a small scene as demo.jpg and demo.dng, expand and develop them, and lay all out on a sheet."""
    from hdrcli.tasks.demo import demo as steps

    for sentence in steps(out):
        render.say(sentence)
