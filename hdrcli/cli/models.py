"""`hdr models`: what there is, what is known of it, and how weights are got, checked and removed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdrcli.cli import render
from hdrcli.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from rich.console import Console

    from hdrcli.cards import Card

app = typer.Typer(help="List, check, get and remove models.", no_args_is_help=True)

_WIDE = 250  # characters of a table that no terminal limits

Name = Annotated[str, typer.Argument(help="A model, as `hdr models list` names it.", show_default=False)]


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array instead of a table.")] = False,
) -> None:
    """List all models, also those whose weights are still to be got."""
    from rich.markup import escape
    from rich.table import Column, Table

    from hdrcli import cards

    found = cards.cards().values()
    if as_json:
        render.json_line([_facts(card) for card in found])
        return
    table = Table(Column("model", no_wrap=True), "task", "network", "weights", "licence", box=None, pad_edge=False)
    for card in found:
        name = f"{card.name} (default)" if _is_default(card) else card.name
        table.add_row(*map(escape, (name, card.task, card.net, _whereabouts(card), card.licence)))
    _stdout().print(table)
    if not all(card.ready for card in found):
        render.say("hdr models show NAME tells how to get weights that are not here")


@app.command()
def show(name: Name) -> None:
    """Show what is known of a model: origin, licence, scores, and where to get it."""
    from rich.markup import escape
    from rich.table import Table

    from hdrcli import cards, nets

    card = cards.lookup(name)
    spec = nets.spec(card.net)
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "model": f"{card.name} (default for {card.task})" if _is_default(card) else card.name,
        "task": card.task,
        "network": card.net,
        "paper": spec.paper,
        "reference": spec.reference,
        "deviations": "\n".join(f"- {line}" for line in spec.deviations),
        "licence": card.licence,
        "origin": card.origin,
        "build": _lines(card.build),
        "training": _lines(card.training),
        "scores": _lines(card.scores),
        "published": _lines(card.published),
        "weights": str(card.weights) if card.ready else "not here",
        "sha256": card.sha256,
        "to get it": "" if card.ready else cards.steps(card),
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, escape(value))
    _stdout().print(table)


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="A model; all whose weights are here if none is named.")] = None,
) -> None:
    """Check that weights are the ones their card names and that the network gives the same numbers here."""
    from rich.markup import escape
    from rich.table import Table

    from hdrcli import cards, zoo

    chosen = [cards.find(name)] if name else [card for card in cards.cards().values() if card.ready]
    table = Table("model", "verdict", "deviation", box=None, pad_edge=False)
    failed = []
    for card in chosen:
        result = zoo.verify(card)
        deviation = "" if result.deviation is None else f"{result.deviation:.2g} of the tolerance"
        table.add_row(card.name, escape(result.problem or "good"), deviation)
        failed += [] if result.ok else [card.name]
    _stdout().print(table)
    if failed:
        raise WeightsError(
            f"{len(failed)} of {len(chosen)} models did not verify: {', '.join(failed)}",
            hint="get them again with hdr models pull or hdr models import",
        )


@app.command()
def pull(name: Name) -> None:
    """Download the weights of a model and, where they are an author's own file, import them."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from hdrcli import cards, zoo

    before = cards.lookup(name)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        row = bar.add_task(name, total=None)
        card = zoo.pull(name, progress=lambda done, total: bar.update(row, completed=done, total=total or None))
    for file, sha256 in card.published.items():
        if not before.published.get(file):
            render.say(f"no checksum of {file} is known; the one received has SHA-256 {sha256}, now kept in the card")
    render.say(f"{name} is whole and in {card.folder}")


@app.command("import")
def import_files(
    net: Annotated[str, typer.Argument(help="The network that the weights belong to.", show_default=False)],
    files: Annotated[list[Path], typer.Argument(help="What its authors published.", show_default=False)],
    name: Annotated[str, typer.Option(help="The model's name from now on.", show_default=False)],
    licence: Annotated[str, typer.Option(help="Under which terms the weights may be used.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the network; may be repeated.")
    ] = None,
    emor: Annotated[
        Path | None, typer.Option(help="The basis of camera responses that SingleHDR reads, invemor.txt.")
    ] = None,
) -> None:
    """Make a model from published weights: `hdr models import fhdr FHDR-iter-2.ckpt --name mine --set iterations=2`."""
    from hdrcli import cards, zoo

    given: dict[str, Any] = dict(_setting(text) for text in settings or [])
    if emor:
        given["emor"] = emor
    card = zoo.import_model(net, files, name=name, licence=licence, settings=given, folder=cards.own_folders()[0])
    render.say(f"{name} is in {card.folder}")


@app.command()
def remove(name: Name) -> None:
    """Delete a model of your own: its card and its weights. Models that came with hdrcli stay."""
    from hdrcli import cards

    card = cards.remove(name)
    render.say(f"removed {name} from {card.folder}")


@app.command()
def path() -> None:
    """Print the folders in which models are looked for, first found first used; new ones go into the first."""
    from hdrcli import cards

    for folder in cards.folders():
        render.data(str(folder))


def _facts(card: "Card") -> dict[str, Any]:
    return {
        "name": card.name,
        "net": card.net,
        "task": card.task,
        "licence": card.licence,
        "sha256": card.sha256,
        "default": _is_default(card),
        "ready": card.ready,
        "origin": card.origin,
        "folder": str(card.folder),
    }


def _is_default(card: "Card") -> bool:
    from hdrcli import cards

    return card.name == cards.default_model(card.task)


def _whereabouts(card: "Card") -> str:
    if card.ready:
        return "here"
    return "to pull" if card.sources else "to get by hand"


def _lines(table: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {value}" if value != "" else key for key, value in table.items())


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE with a number, true, false or otherwise a string as its value."""
    import tomllib

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {text} is not KEY=VALUE", hint="for instance --set iterations=2")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _stdout() -> "Console":
    """Tables fit the terminal; in a pipe or a file they are as wide as they need to be."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
