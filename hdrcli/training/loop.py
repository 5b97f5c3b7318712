"""The training loop: stages in order, AdamW, schedules, averaged weights, validation, states to continue from."""

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hdrcli.errors import HdrError, UsageError
from hdrcli.precision import reduced
from hdrcli.training import feed, parallel, state
from hdrcli.training.course import Batch, Course, Losses, Scores
from hdrcli.training.recipe import Recipe, Stage
from hdrcli.training.state import State

SAVE_EVERY = 300.0  # seconds
INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a training lasts: to `seconds` or `steps`, whichever comes first; stages have their shares of both."""

    seconds: float = math.inf
    steps: float = math.inf

    def progress(self, share: float, seconds: float, steps: int) -> float:
        """How far a stage with that share of the whole is, from 0; 1 is its end."""
        return max(seconds / (self.seconds * share), steps / max(round(self.steps * share, 6), 1))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a training runs. bf16: whether the forward pass is in bfloat16. workers: processes that make samples."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bf16: bool = False
    workers: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step has to tell.

    step: of all stages, from 1. done: share of the whole training. losses: running means of the weighted parts.
    speed: samples per second. waiting: share of the time in which the network waited for samples. left: seconds.
    scores: of a validation, where there was one after this step. best: whether they are the stage's best.
    plain: scores of the unprocessed input beside them, where it can be judged.
    """

    stage: str
    step: int
    done: float
    losses: dict[str, float]
    rate: float
    speed: float
    waiting: float
    left: float
    scores: Scores = field(default_factory=dict)
    best: bool = False
    plain: Scores = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a training ended. stopped: why before its end, "" where it is complete. failed: whether nobody wished it."""

    steps: int
    stopped: str = ""
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training: what it trains, how, for how long, and who follows it.

    folder: gets the newest state, at every validation and on leaving, and the best weights of the stage.
    watch: called after every step, in the first process alone. stop: asked after every step.
    """

    course: Course
    recipe: Recipe
    budget: Budget
    folder: Path
    settings: Settings = field(default_factory=Settings)
    watch: Callable[[Report], None] = lambda report: None
    stop: Callable[[], bool] = lambda: False


def train(run: Run, *, resume: bool = False) -> Ended:
    """Trains the network through the stages of the recipe, from the start or from the newest state.

    A loss or gradient that is not finite ends the run before it touches the weights.
    """
    if math.isinf(run.budget.seconds) and math.isinf(run.budget.steps):
        raise UsageError("a training needs an end", hint="give a time limit or a number of steps")
    layout = torch.channels_last
    now = state.begin(run.course.network.to(run.settings.device, memory_format=layout))  # type: ignore[call-overload]
    if resume:
        state.load(now, run.folder)
    while now.stage < len(run.recipe.stages):
        stopped = _stage(run, now)
        if stopped and now.stage < len(run.recipe.stages):
            return Ended(now.total, stopped, failed=stopped != INTERRUPTED)
    return Ended(now.total)


def _stage(run: Run, now: State) -> str:
    """Trains to the end of the stage that `now` stands in; returns why it stopped before, "" if it did not."""
    stage = run.recipe.stages[now.stage]
    share, before = _shares(run.recipe, now.stage)
    stepper = _Stepper(run, stage, now)
    checks = max(1, round(run.recipe.checks * share))
    progress = run.budget.progress(share, now.seconds, now.step)
    meter = _Meter(stage, run.budget, before + share * progress)
    saved, halted = time.monotonic(), 0.0
    with closing(_samples(run, stage, now)) as samples:
        while progress < 1:
            began = time.monotonic()
            try:
                batch = next(samples)
            except HdrError:
                _save(run, now, stepper)
                raise
            waited = time.monotonic() - began
            losses = stepper(batch, progress)
            if losses is None:
                _save(run, now, stepper)
                return f"the loss of step {now.total + 1}, in stage {stage.name}, is not finite"
            now.step, now.total = now.step + 1, now.total + 1
            state.average(now, stage.average)
            meter.add(losses, time.monotonic() - began, waited)
            old, seconds = progress, now.seconds + time.monotonic() - began
            (progress,) = parallel.largest(run.budget.progress(share, seconds, now.step))
            due = progress >= 1 or int(progress * checks) > int(old * checks)
            scores, best = _check(run, stage, now) if due else ({}, False)
            now.seconds += time.monotonic() - began
            if parallel.leads():
                done = before + share * min(progress, 1)
                report = meter.report(now.total, done, stepper.rate, scores, best)
                run.watch(replace(report, plain=run.course.plain if scores else {}))
            (halted,) = parallel.largest(float(run.stop()))
            if due or halted or time.monotonic() - saved > SAVE_EVERY:
                _save(run, now, stepper)
                saved = time.monotonic()
            if halted and progress < 1:
                return INTERRUPTED
    state.next_stage(now)
    _save(run, now, None)
    return INTERRUPTED if halted else ""


def _shares(recipe: Recipe, number: int) -> tuple[float, float]:
    """The share of a stage in the whole training, and that of all stages before it."""
    total = sum(stage.share for stage in recipe.stages)
    return recipe.stages[number].share / total, sum(stage.share for stage in recipe.stages[:number]) / total


def _samples(run: Run, stage: Stage, now: State) -> Generator[Batch, None, None]:
    settings = run.settings
    return feed.batches(
        run.course,
        stage,
        seed=(settings.seed, now.stage),
        step=now.step,
        workers=settings.workers,
        device=settings.device,
        part=parallel.place(),
    )


def _check(run: Run, stage: Stage, now: State) -> tuple[Scores, bool]:
    """Validates the averaged weights and keeps them if they are the best of the stage."""
    if not parallel.leads():
        return {}, False
    scores = run.course.score(now.averaged, stage)
    best = not now.best or scores["error"] < now.best["error"]
    if best:
        state.save_best(now, scores, run.folder)
    return scores, best


def _save(run: Run, now: State, stepper: "_Stepper | None") -> None:
    now.moments = stepper.optimizer.state_dict() if stepper else {}
    if parallel.leads():
        state.save(now, run.folder)


class _Objective(nn.Module):
    """The losses of a batch as a module, so that several processes can share the work."""

    def __init__(self, course: Course, stage: Stage) -> None:
        super().__init__()
        self.network = course.network
        self._course, self._stage = course, stage

    def forward(self, batch: Batch) -> Losses:
        return self._course.loss(self.network, batch, self._stage)


class _Stepper:
    """Takes the steps of one stage."""

    def __init__(self, run: Run, stage: Stage, now: State) -> None:
        self.rate = 0.0
        self._run, self._stage, self._now = run, stage, now
        self._parameters = _choose(now.network, stage)
        self._still = [m for m in now.network.modules() if _has_parameters(m) and not _learns(m)]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self._parameters if p.ndim > 1], "weight_decay": stage.decay},
                {"params": [p for p in self._parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=stage.rate,
            betas=(0.9, 0.99),
        )
        if now.moments:
            self.optimizer.load_state_dict(now.moments)
        self._objective = parallel.together(_Objective(run.course, stage))

    def __call__(self, batch: Batch, progress: float) -> dict[str, float] | None:
        """One step; the weighted parts of the loss, or None where it is not finite: then nothing has changed."""
        stage, now = self._stage, self._now
        torch.manual_seed(_seed(self._run.settings.seed, now.stage, now.step))
        self.rate = stage.rate_at(progress, now.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        now.network.train()
        for module in self._still:
            module.eval()
        buffers = [buffer.clone() for buffer in now.network.buffers()]
        with reduced(self._run.settings.device, "bf16" if self._run.settings.bf16 else "fp32"):
            found = self._objective(batch)
        parts = {name: stage.loss[name].at(progress) * value.float() for name, value in found.items()}
        total = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, stage.clip)
        (bad,) = parallel.largest(float(not (total.isfinite() and norm.isfinite())))
        if bad:
            for buffer, old in zip(now.network.buffers(), buffers, strict=True):
                buffer.copy_(old)
            return None
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in parts.items()}


def _choose(network: nn.Module, stage: Stage) -> list[nn.Parameter]:
    """Lets those parameters learn that the stage trains, and no others; UsageError if there are none."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not stage.trains or name.startswith(stage.trains))
    chosen = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not chosen:
        raise UsageError(f"stage {stage.name} trains nothing of this network", hint="mend `trains` in the recipe")
    return chosen


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _seed(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1)[0])


class _Meter:
    """Running means of the losses, and speeds since the stage was begun or continued."""

    def __init__(self, stage: Stage, budget: Budget, done: float) -> None:
        self._stage, self._budget, self._began_at = stage, budget, done
        self._losses: dict[str, float] = {}
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def add(self, losses: Mapping[str, float], seconds: float, waited: float) -> None:
        if self._steps == 0:
            self._losses = dict(losses)
        self._losses = {name: 0.98 * self._losses[name] + 0.02 * value for name, value in losses.items()}
        self._steps, self._seconds, self._waited = self._steps + 1, self._seconds + seconds, self._waited + waited

    def report(self, step: int, done: float, rate: float, scores: Scores, best: bool) -> Report:
        whole = self._budget.seconds
        if math.isinf(whole):
            whole = self._seconds / (done - self._began_at)
        return Report(
            stage=self._stage.name,
            step=step,
            done=done,
            losses=self._losses,
            rate=rate,
            speed=self._stage.batch * self._steps / self._seconds,
            waiting=self._waited / self._seconds,
            left=(1 - done) * whole,
            scores=scores,
            best=best,
        )
