"""`hdr eval`: how good pictures or models are, by a named protocol."""

import os
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdrcli.cli import render
from hdrcli.cli.options import Precision
from hdrcli.errors import UsageError

if TYPE_CHECKING:
    from hdrcli.tasks.datasets import Sample
    from hdrcli.tasks.evaluate import Keep, Plan, Scored

_WHAT = {"rich_help_panel": "What is scored"}
_RUN = {"rich_help_panel": "How it runs"}
_REPORT = {"rich_help_panel": "What it says"}


class ProtocolName(StrEnum):
    """The names of `protocols.PROTOCOLS`."""

    HANJI = "hanji"
    MU_LAW = "mu-law"
    DISPLAY = "display"


class Feed(StrEnum):
    """How sensor data are given to the network."""

    CANONICAL = "canonical"
    NATIVE = "native"


def evaluate(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="PRED REF | DATA", help="Predictions and references, or with --model the data."),
    ],
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME[,NAME...]", help="Models to run on DATA.", **_WHAT)
    ] = None,
    protocol: Annotated[
        ProtocolName | None, typer.Option(help="hanji for HDR unless named, display for develop.", **_WHAT)
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option("--input", metavar="LDR", help="The pictures that PRED was made from.", **_WHAT)
    ] = None,
    also: Annotated[
        str, typer.Option(metavar="NAME[,NAME...]", help="More scores: cvvdp, hdrvdp3; nima, musiq, liqe.", **_WHAT)
    ] = "",
    without: Annotated[
        str, typer.Option(metavar="NAME[,NAME...]", help="Scores to leave out: vsi, which is slow.", **_WHAT)
    ] = "",
    hdrvdp3_cmd: Annotated[
        str | None,
        typer.Option("--hdrvdp3-cmd", metavar="CMD", help="Prints HDR-VDP-3 of {pred} and {ref}, EXR files.", **_WHAT),
    ] = None,
    views: Annotated[int, typer.Option(min=1, metavar="N", help="Of each HDR scene.", **_WHAT)] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.", **_WHAT)] = 0,
    sensor: Annotated[Feed, typer.Option(help="How sensor data are fed.", **_RUN)] = Feed.CANONICAL,
    look: Annotated[
        str | None, typer.Option(metavar="NAME", help="Tone mapping of develop models; fusion.", **_RUN)
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Pictures scored side by side.", **_RUN)] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where networks run.", **_RUN)] = "auto",
    precision: Annotated[Precision, typer.Option(help="Of a network's arithmetic.", **_RUN)] = Precision.AUTO,
    tile: Annotated[int | None, typer.Option(min=64, metavar="N", help="Side of a tile.", **_RUN)] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write DIR/index.html and DIR/scores.csv.", **_REPORT)
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all rows as CSV.", **_REPORT)] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.", **_REPORT)] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Means only, not each picture.", **_REPORT)] = False,
) -> None:
    """Score pictures against references, or models on data, by a named protocol.

    Pairs are made by name without ending. DATA is a folder of HDR scenes, which a virtual camera photographs, or one
    in the layout of a published data set: LDR and HDR, huawei_raw and canon, raw and groundtruth.
    """
    names = _list(model or "")
    if len(places) != (1 if names else 2):
        raise UsageError(
            f"{len(places)} places are named", hint="hdr eval PRED REF, or hdr eval --model NAME[,NAME...] DATA"
        )
    if names and inputs:
        raise UsageError("--input goes with PRED and REF; a model has its inputs in DATA", hint="leave --input out")
    from hdrcli import outside
    from hdrcli.infer import Compute, describe
    from hdrcli.isolation import Decoders
    from hdrcli.protocols import PROTOCOLS
    from hdrcli.tasks import datasets, results, shots
    from hdrcli.tasks.evaluate import Plan, models_for, protocol_for

    compute = Compute(device=device, precision=precision.value, tile=tile)
    describe(compute)
    extra = tuple(dict.fromkeys([*_list(also), *(["hdrvdp3"] if hdrvdp3_cmd else [])]))
    models = models_for(names)
    chosen = protocol_for(protocol, models)
    metrics = PROTOCOLS[chosen].metrics(extra, tuple(_list(without)))
    outside.check(extra, hdrvdp3_cmd)
    plan = Plan(PROTOCOLS[chosen], metrics, models, compute, sensor.value, look, hdrvdp3_cmd)
    decoders = Decoders()
    if models:
        task = next(iter(models.values())).card.task
        if look and task != "develop":
            raise UsageError("--look is for models that develop", hint="leave --look out")
        samples, about = datasets.discover(
            places[0], task, views=views, seed=seed, feed=sensor.value, read=decoders.read
        )
    else:
        samples = datasets.file_pairs(places[0], places[1], inputs, plan.protocol.holds, read=decoders.read)
        about = f"pairs by name, {places[0]} against {places[1]}"

    keep = shots.KEEP[plan.protocol.holds] if report else None
    with decoders:
        scored = _score(samples, plan, workers=jobs or os.cpu_count() or 1, quiet=quiet, keep=keep)
    result = results.Evaluation(chosen, about, plan, scored)
    if report:
        from hdrcli.tasks.report import write_report

        render.say(f"report: {write_report(result, report)}")
    if csv:
        results.write_csv(result, csv)
    if json:
        render.json_line(results.as_json(result))
    else:
        from hdrcli.cli import evaltables

        evaltables.show(result, every=not quiet)
    if result.failed:
        raise typer.Exit(1)


def _score(samples: "list[Sample]", plan: "Plan", *, workers: int, quiet: bool, keep: "Keep | None") -> "list[Scored]":
    from hdrcli.tasks.evaluate import evaluate as score

    scored = []
    outcomes = score(samples, plan, workers=workers, keep=keep)
    with closing(outcomes), render.progress(len(samples), shown=not quiet) as tick:
        for one in outcomes:
            scored.append(one)
            tick()
            if one.error:
                render.failed_file(Path(one.sample.name), one.error, one.hint)
    return scored


def _list(names: str) -> list[str]:
    return [name for name in (part.strip() for part in names.split(",")) if name]
