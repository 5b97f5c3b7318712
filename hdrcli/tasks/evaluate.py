"""eval: pictures, from files or from models, against references, by a named protocol."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from time import perf_counter

import numpy as np

from hdrcli import cards, infer, protocols, zoo
from hdrcli.batch import in_order
from hdrcli.color import Float32
from hdrcli.errors import HdrError, ReadError, UsageError
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.protocols import Pair, Protocol
from hdrcli.sensor import Mosaic
from hdrcli.tasks.common import model_for
from hdrcli.tasks.datasets import Feed, Loaded, Sample, cleaned
from hdrcli.tasks.develop import develop_mosaic
from hdrcli.tasks.expand import expand_image
from hdrcli.tasks.shots import Shots

INPUT = "input"  # the row of the unprocessed picture
PREDICTION = "prediction"  # the row of pictures that came as files


@dataclass(frozen=True)
class Plan:
    """How to evaluate. metrics: names in order. models: by name, none where predictions are files.

    look: as of `hdr develop`. hdrvdp3: the command, None unless asked for.
    """

    protocol: Protocol
    metrics: list[str]
    models: Mapping[str, zoo.Model]
    compute: Compute
    feed: Feed = "canonical"
    look: str | None = None
    hdrvdp3: str | None = None


@dataclass(frozen=True)
class Row:
    """Scores of one picture by one system: a model, the prediction that came as a file, or the unprocessed input.

    seconds: of the model alone, None where none ran. NaN stands for a score that does not apply.
    """

    image: str
    group: str
    scene: str
    system: str
    scores: dict[str, float]
    megapixels: float
    seconds: float | None = None
    device: str = ""
    precision: str = ""


@dataclass(frozen=True)
class Scored:
    """What became of one sample: its rows, or why there are none; notes on what was corrected or assumed.

    pictures: for a report, what `keep` made of the pairs, by system.
    """

    sample: Sample
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""
    pictures: Shots | None = None


Keep = Callable[[Mapping[str, Pair]], Shots]


def models_for(names: Sequence[str]) -> dict[str, zoo.Model]:
    """The named models, ready to run; UsageError unless all are for the same task."""
    models = {}
    for name in names:
        models[name] = model_for(cards.lookup(name).task, name)
    tasks = {model.card.task for model in models.values()}
    if len(tasks) > 1:
        raise UsageError("models for expand and develop cannot be compared", hint="name models of one task")
    return models


def evaluate(
    samples: Sequence[Sample], plan: Plan, *, workers: int, keep: Keep | None = None
) -> Generator[Scored, None, None]:
    """Scores all samples, several at a time, and yields what became of each in order.

    keep: makes of the pairs of all systems what a report will show. On leaving early, as by Ctrl-C, what has begun is
    finished first.
    """
    device = Lock()

    def carry(sample: Sample) -> Scored:
        return _carry(sample, plan, device, keep)

    yield from in_order(samples, carry, workers=workers, stopped=Event())


def _carry(sample: Sample, plan: Plan, device: Lock, keep: Keep | None) -> Scored:
    try:
        return _score(sample, plan, device, keep)
    except HdrError as error:
        return Scored(sample, error=error.message, hint=error.hint)
    except MemoryError:
        return Scored(sample, error="there is not enough memory for this picture", hint="use fewer --jobs")


def _score(sample: Sample, plan: Plan, device: Lock, keep: Keep | None) -> Scored:
    loaded = sample.load()
    height, width = loaded.reference.shape[:2]
    rows, pairs, notes = [], {}, list(loaded.notes)

    def add(system: str, picture: Float32, seconds: float | None = None, device: str = "", precision: str = "") -> None:
        if picture.shape != loaded.reference.shape:
            raise ReadError(
                f"{system} gives {picture.shape[1]} x {picture.shape[0]} pixels, the reference has {width} x {height}",
                hint="nothing is resized: give data of one size",
            )
        pair = plan.protocol.prepare(Pair(picture, loaded.reference, loaded.clipped))
        scores = protocols.score(plan.protocol, pair, plan.metrics, plan.hdrvdp3)
        place = sample.name, sample.group, sample.scene, system
        rows.append(Row(*place, scores, height * width / 1e6, seconds, device, precision))
        pairs[system] = pair

    if loaded.plain is not None:
        add(INPUT, loaded.plain)
    if loaded.given is not None:
        add(PREDICTION, loaded.given)
    for name, model in plan.models.items():
        with device:
            start = perf_counter()
            made = _run(model, loaded, plan)
            seconds = perf_counter() - start
        picture, more = cleaned(made.pixels, name)
        notes += more
        add(name, picture, seconds, made.device, made.precision)
    kept = keep(pairs) if keep else None
    return Scored(sample, tuple(rows), tuple(notes), pictures=kept)


def _run(model: zoo.Model, loaded: Loaded, plan: Plan) -> infer.Result:
    """What the model makes of the sample's source, finished as the commands expand and develop would."""
    if isinstance(loaded.source, Mosaic):
        made = develop_mosaic(model, loaded.source, feed=plan.feed, look=plan.look, compute=plan.compute)
    else:
        assert isinstance(loaded.source, Image)
        made = expand_image(model, loaded.source, compute=plan.compute)
    return infer.Result(made.image.pixels, made.device, made.precision, made.tiles)


def protocol_for(name: str | None, models: Mapping[str, zoo.Model]) -> str:
    """The protocol asked for, or the one that suits: display for develop, else hanji; UsageError where it cannot be."""
    develops = any(model.card.task == "develop" for model in models.values())
    chosen = name or ("display" if develops else "hanji")
    if chosen not in protocols.PROTOCOLS:
        raise UsageError(f"there is no protocol {chosen!r}", hint="protocols: " + ", ".join(protocols.PROTOCOLS))
    holds = protocols.PROTOCOLS[chosen].holds
    if models and develops != (holds == Transfer.SRGB):
        task = "develop" if develops else "expand"
        raise UsageError(f"{chosen} does not suit models that {task}", hint="leave --protocol out")
    return chosen


def speeds(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds per megapixel of each model over all its pictures."""
    found = {}
    for system in dict.fromkeys(row.system for row in rows if row.seconds is not None):
        own = [(row.seconds or 0.0, row.megapixels) for row in rows if row.system == system]
        seconds, megapixels = np.sum(own, axis=0)
        found[system] = float(seconds / megapixels)
    return found
