"""train: fits a network by its recipe to the data in a folder and keeps the result as a model."""

import logging
import math
import signal
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

import tomli_w

from hdrcli import __version__, cards, infer, nets, zoo
from hdrcli.errors import HdrError, ReadError, UsageError
from hdrcli.files import atomic_write
from hdrcli.network import StateDict
from hdrcli.precision import ceiling
from hdrcli.training import data as found_data
from hdrcli.training import loop, parallel, recipe, speed, state, vgg
from hdrcli.training.course import Course, Scores
from hdrcli.training.data import Data
from hdrcli.training.journal import PICTURES, Journal, write_picture
from hdrcli.training.loop import Budget, Ended, Report, Run, Settings
from hdrcli.training.recipe import Recipe

RECIPE, RUN = "recipe.toml", "run.toml"  # in the folder of a training
DEFAULT_SECONDS = 3600.0
PERCEPTUAL = "perceptual"  # the part of a loss that needs VGG weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be trained. None stands for what the run that is continued had, or for the default.

    net: the network. data: a folder with train/ and val/ or test/. name: of the model to be made.
    recipe: a TOML file or the name of a shipped recipe; the network's own by default. stage: the only one to train.
    begin: the model whose weights and build arguments it begins with. seconds, steps: limits.
    vgg: torchvision's weights of VGG-16 or VGG-19, for the perceptual part of losses.
    precision: "auto", "fp32" or "bf16". workers: processes that make samples. folder: where the model goes.
    resume: whether to continue. overwrite: whether a model and a training of that name may be replaced.
    """

    net: str
    data: Path
    name: str
    recipe: str | None = None
    stage: str | None = None
    begin: str | None = None
    seconds: float | None = None
    steps: int | None = None
    seed: int | None = None
    device: str = "auto"
    precision: str | None = None
    workers: int | None = None
    vgg: Path | None = None
    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False

    @property
    def models(self) -> Path:
        return self.folder or cards.own_folders()[0]

    @property
    def place(self) -> Path:
        """The folder of the training itself."""
        return self.models / f"{self.name}.training"


@cache
def trainable() -> list[str]:
    """The networks that can be trained: those with a shipped recipe."""
    return sorted({recipe.load(name).net for name in recipe.shipped()})


def train(order: Order, *, watch: Callable[[Report], None] = lambda report: None) -> cards.Card:
    """Trains a network and saves weights and card.

    The folder NAME.training beside the card gets what a training can be continued from, its log and its curves. On
    Ctrl-C the state is saved, and the model if it is of use already; then KeyboardInterrupt goes on. Raises UsageError
    for what cannot be, ReadError for data that cannot be read, HdrError where the training fails.
    """
    chosen, budget, settings = _plan(order)
    data = check_data(order)
    begin = _weights(order) if order.begin else None
    with parallel.group(settings.device), _polite() as stop:
        settings = replace(settings, device=parallel.own_device(settings.device))
        module = _module(order.net)
        judge = {"vgg": vgg.load(order.vgg).to(settings.device)} if order.vgg and PERCEPTUAL in module.LOSSES else {}
        course = module.course(data, chosen, budget, settings.seed, **judge)
        if begin is not None:
            course.network.load_state_dict(begin)
        state.require_space(course.network, order.place)
        _note(order, chosen, budget, settings)
        journal = Journal(order.place, resume=order.resume)

        reports: deque[Report] = deque(maxlen=1)

        def follow(report: Report) -> None:
            reports.append(report)
            journal(report)
            watch(report)

        run = Run(
            course=course,
            recipe=chosen,
            budget=budget,
            folder=order.place,
            settings=settings,
            watch=follow,
            stop=stop.is_set,
        )
        ended = loop.train(run, resume=order.resume)
        pace: dict[str, float] = {}
        if parallel.leads():
            journal.close()
            pace = _pace(course, chosen, settings, reports)
            _show(course, chosen, order.place)
    facts = {"data": str(data), "vgg": order.vgg.name if judge and order.vgg else "none", **pace}
    card = _keep(order, chosen, budget, settings, facts, course.plain, ended)
    if ended.failed:
        hint = f"lower the rate in {order.place / RECIPE}, or use --precision fp32, and continue with --resume"
        raise HdrError(ended.stopped, hint=hint)
    if ended.stopped:
        raise KeyboardInterrupt
    if card is None:
        raise HdrError(f"{order.place} holds no validated weights", hint="begin anew with --overwrite")
    return card


def faults(order: Order) -> list[tuple[Path, HdrError]]:
    """Reads all data of an order once: the files that cannot be used, each with the error that says why."""
    data = check_data(order)
    return found_data.faults(data, found_data.READERS[data.train.kind])


def _pace(course: Course, chosen: Recipe, settings: Settings, reports: Sequence[Report]) -> dict[str, float]:
    """Samples per second of the last step's stage, and its share of what the device can do in plain convolutions."""
    if not reports:
        return {}
    (last,) = reports
    try:
        flops = speed.flops_of_sample(course, _stage(chosen, last.stage), settings.device, settings.seed)
    except ReadError:  # a file that was there in training is not now: that costs the speed, not the model
        return {}
    done = flops * last.speed
    most = 1e9 * ceiling(settings.device, "bf16" if settings.bf16 else "fp32")
    return {"samples_per_second": float(f"{last.speed:.3g}"), "share_of_ceiling": round(done / most, 3)}


def _show(course: Course, chosen: Recipe, place: Path) -> None:
    """Writes the sheet of validation pictures by the best weights, if there are any of the last stage."""
    best = state.load_best(place, len(chosen.stages) - 1)
    if best is not None and course.sheet is not None:
        course.network.load_state_dict(best[0])
        write_picture(place / PICTURES, course.sheet(course.network.eval()))


def check_data(order: Order) -> Data:
    """The data of an order, found but not read; UsageError or ReadError where they cannot be."""
    module = _module(order.net)
    return found_data.find(order.data, nets.spec(order.net).task, module.KINDS)


def _module(net: str) -> Any:
    if net not in trainable():
        raise UsageError(f"{net} cannot be trained here", hint="networks: " + ", ".join(trainable()))
    return import_module(f"hdrcli.training.{net}")


def _plan(order: Order) -> tuple[Recipe, Budget, Settings]:
    """The effective recipe, limits and settings; an order that cannot be is refused before any work."""
    module = _module(order.net)
    cards.check_name(order.name)
    begun = (order.place / state.NEWEST).is_file()
    if order.resume and not begun:
        raise UsageError(f"no training of {order.name} has begun", hint="leave --resume out")
    if not order.resume and not order.overwrite and (begun or (order.models / f"{order.name}.toml").is_file()):
        raise UsageError(
            f"there is already a model or a training named {order.name}",
            hint="continue it with --resume, replace it with --overwrite, or choose another name",
        )
    if order.resume and (order.recipe or order.stage or order.begin or order.seed is not None):
        raise UsageError(
            "a training that is continued keeps its recipe, stage, first weights and seed",
            hint=f"edit {order.place / RECIPE}",
        )
    before = _read_run(order.place / RUN) if order.resume else {}
    chosen = recipe.read(order.place / RECIPE) if order.resume else recipe.load(order.recipe or order.net)
    if chosen.net != order.net:
        raise UsageError(f"this recipe is for {chosen.net}, not for {order.net}", hint="name its network")
    _check_recipe(chosen, module)
    if order.stage is not None:
        chosen = replace(chosen, stages=(_stage(chosen, order.stage),))
    if order.begin is not None:
        chosen = replace(chosen, build=_card(order.begin, order.net).build)
    if order.vgg is None:
        chosen = without_perceptual(chosen)
    device = infer.describe(infer.Compute(device=order.device)).device
    precision = order.precision or before.get("precision") or chosen.precision
    settings = Settings(
        device=device,
        bf16=precision == "bf16" or (precision == "auto" and speed.bf16_is_faster(device)),
        workers=order.workers if order.workers is not None else (4 if device.type == "cuda" else 0),
        seed=order.seed if order.seed is not None else before.get("seed", 0),
    )
    return chosen, _budget(order, before), settings


def _stage(chosen: Recipe, name: str) -> recipe.Stage:
    for stage in chosen.stages:
        if stage.name == name:
            return stage
    names = ", ".join(repr(stage.name) for stage in chosen.stages)
    raise UsageError(f"the recipe has no stage {name!r}", hint=f"there are {names}")


def _card(name: str, net: str) -> cards.Card:
    """The card of a model to begin with."""
    card = cards.find(name)
    if card.net != net:
        raise UsageError(f"{name} is a model of {card.net}, not of {net}", hint=f"name a model of {net}")
    return card


def _weights(order: Order) -> StateDict:
    return zoo.open_card(_card(str(order.begin), order.net)).network.state_dict()


def without_perceptual(chosen: Recipe) -> Recipe:
    """The recipe without what needs the features of another network; says so where that leaves something out."""
    stages = [
        replace(stage, loss={name: weight for name, weight in stage.loss.items() if name != PERCEPTUAL})
        for stage in chosen.stages
    ]
    if any(len(a.loss) != len(b.loss) for a, b in zip(stages, chosen.stages, strict=True)):
        logger.warning("training without the perceptual part of the loss: --vgg FILE names the weights for it")
    return replace(chosen, stages=tuple(stages))


def _budget(order: Order, before: dict[str, Any]) -> Budget:
    if order.seconds is None and order.steps is None:
        return Budget(seconds=before.get("seconds", DEFAULT_SECONDS), steps=before.get("steps", math.inf))
    return Budget(seconds=order.seconds or math.inf, steps=order.steps or math.inf)


def _check_recipe(chosen: Recipe, module: Any) -> None:
    """UsageError where the recipe asks for losses, options or build arguments that the network does not have."""
    for stage in chosen.stages:
        for kind, names, known in (("loss", stage.loss, module.LOSSES), ("option", stage.options, module.OPTIONS)):
            unknown = [name for name in names if name not in known]
            if unknown:
                raise UsageError(
                    f"stage {stage.name} asks for a {kind} {unknown[0]!r}, which {chosen.net} does not have",
                    hint=f"there are: {', '.join(known) or 'none'}",
                )


def _note(order: Order, chosen: Recipe, budget: Budget, settings: Settings) -> None:
    """Writes recipe and settings beside the state, for --resume and for people."""
    if not parallel.leads():
        return
    if order.overwrite and not order.resume:
        for name in (state.NEWEST, state.BEST):
            (order.place / name).unlink(missing_ok=True)
    run = {
        "net": order.net,
        "data": str(order.data),
        "seed": settings.seed,
        "seconds": budget.seconds,
        "steps": float(budget.steps),
        "precision": "bf16" if settings.bf16 else "fp32",
        "version": __version__,
    }
    for name, table in ((RECIPE, chosen.table()), (RUN, run)):
        with atomic_write(order.place / name) as part:
            part.write_text(tomli_w.dumps(table), encoding="utf-8")


def _read_run(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReadError(f"{path} cannot be read: {error}", hint="begin anew under another name") from error


def _keep(
    order: Order,
    chosen: Recipe,
    budget: Budget,
    settings: Settings,
    found: Mapping[str, object],
    plain: Scores,
    ended: Ended,
) -> cards.Card | None:
    """Saves the best weights of the last stage as a model, if there are any yet; its card gets what was `found`."""
    best = state.load_best(order.place, len(chosen.stages) - 1)
    if best is None or not parallel.leads():
        return None
    weights, scores = best
    facts: dict[str, Any] = {
        "seed": settings.seed,
        "steps": ended.steps,
        "precision": "bf16" if settings.bf16 else "fp32",
        "version": __version__,
        **found,
        "recipe": chosen.table(),
    }
    if order.begin is not None:
        facts["from"] = order.begin
    if math.isfinite(budget.seconds):
        facts["seconds"] = budget.seconds
    measured = {"val": scores, "val_input": plain} if plain else {"val": scores}
    return zoo.save(
        name=order.name,
        net=order.net,
        state=weights,
        build=dict(chosen.build),
        licence="CC0-1.0",
        origin="trained with hdr train",
        training=facts,
        scores={
            of: {key: round(value, 3) for key, value in table.items() if key != "error"}
            for of, table in measured.items()
        },
        folder=order.models,
    )


@contextmanager
def _polite() -> Iterator[Event]:
    """The first Ctrl-C or SIGTERM sets the event that it yields; the next one ends the program at once."""
    asked = Event()
    if current_thread() is not main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        asked.set()
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
