"""The training loop: it learns, it can be paused without a trace, and it never leaves a broken state behind."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdrcli.errors import ReadError, UsageError
from hdrcli.network import Context, Network
from hdrcli.tiling import Tiling
from hdrcli.training import loop, state
from hdrcli.training.course import Batch, Course, Sample
from hdrcli.training.recipe import Recipe, Stage, Weight


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only stand in each other's way on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ANSWER = torch.tensor([[1.0], [-2.0], [0.5], [3.0]])


class Line(Network):
    """A linear map with what makes networks differ from run to run: dropout and running means."""

    def __init__(self) -> None:
        super().__init__()
        self.tiling = Tiling()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.1)
        self.line = nn.Linear(4, 1)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        out: Tensor = self.line(self.drop(self.norm(tile)))
        return out


def sample(stage: Stage, rng: np.random.Generator) -> Sample:
    x = torch.from_numpy(rng.standard_normal(4, np.float32))
    return {"x": x, "y": x @ ANSWER}


def loss(network: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
    error = network(batch["x"], {}) - batch["y"]
    return {"square": error.square().mean(), "size": error.abs().mean()}


def score(network: nn.Module, stage: Stage) -> dict[str, float]:
    x = torch.eye(4)
    return {"error": float((network(x, {}) - x @ ANSWER).square().mean().detach())}


RECIPE = Recipe(
    net="line",
    checks=4,
    stages=(
        Stage(name="first", share=1, batch=4, rate=0.05, loss={"square": Weight(weight=1)}, average=0.9),
        Stage(
            name="second",
            share=3,
            batch=4,
            rate=0.05,
            schedule="step",
            average=0.9,
            loss={"square": Weight(weight=1), "size": Weight(weight=0.1, after=0.5)},
        ),
    ),
)


def sized(network: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
    return {name: value for name, value in loss(network, batch, stage).items() if name in stage.loss}


def run(
    folder: Path, *, steps: int = 20, seed: int = 0, stop_at: int = 0, workers: int = 0, **course: object
) -> loop.Run:
    torch.manual_seed(seed)
    made = Course(**{"network": Line(), "sample": sample, "loss": sized, "score": score, **course})  # type: ignore[arg-type]
    seen: list[int] = []
    return loop.Run(
        course=made,
        recipe=RECIPE,
        budget=loop.Budget(steps=steps),
        folder=folder,
        settings=loop.Settings(seed=seed, workers=workers),
        watch=lambda report: seen.append(report.step),
        stop=lambda: bool(seen) and seen[-1] == stop_at,
    )


def weights(one: loop.Run) -> dict[str, Tensor]:
    return one.course.network.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_keeps_the_best(tmp_path: Path) -> None:
    one = run(tmp_path, steps=400)
    before = score(one.course.network.eval(), RECIPE.stages[0])["error"]
    assert loop.train(one) == loop.Ended(400)
    best = state.load_best(tmp_path, 1)
    assert best is not None and best[1]["error"] < 0.1 * before
    assert state.load_best(tmp_path, 0) is None


def test_one_seed_gives_one_result_whoever_makes_the_samples(tmp_path: Path) -> None:
    one, two, other = run(tmp_path / "a"), run(tmp_path / "b", workers=2), run(tmp_path / "c", seed=1)
    for each in (one, two, other):
        loop.train(each)
    assert same(weights(one), weights(two)) and not same(weights(one), weights(other))


@pytest.mark.parametrize("stop_at", [3, 5, 10, 19])
def test_a_pause_leaves_no_trace(tmp_path: Path, stop_at: int) -> None:
    straight = run(tmp_path / "a")
    loop.train(straight)
    assert loop.train(run(tmp_path / "b", stop_at=stop_at)) == loop.Ended(stop_at, loop.INTERRUPTED)
    resumed = run(tmp_path / "b")
    assert loop.train(resumed, resume=True) == loop.Ended(20)
    assert same(weights(straight), weights(resumed))
    for name in (state.NEWEST, state.BEST):
        a, b = (torch.load(tmp_path / folder / name, weights_only=True) for folder in ("a", "b"))
        assert same(*(table.get("averaged", table.get("weights")) for table in (a, b)))


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    straight = run(tmp_path / "a", stop_at=7)
    loop.train(straight)
    steps: list[int] = []

    def poisoned(network: nn.Module, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        steps.append(1)
        return sized(network, {**batch, "x": batch["x"] * (torch.nan if len(steps) == 8 else 1)}, stage)

    broken = run(tmp_path / "b", loss=poisoned)
    ended = loop.train(broken)
    assert ended.failed and "step 8, in stage second, is not finite" in ended.stopped
    assert same(weights(straight), weights(broken))
    resumed = run(tmp_path / "b")
    assert loop.train(resumed, resume=True) == loop.Ended(20)


def test_a_stage_trains_what_it_names(tmp_path: Path) -> None:
    one = run(tmp_path)
    stages = tuple(replace(stage, trains=("line.",)) for stage in RECIPE.stages)
    before = {name: tensor.clone() for name, tensor in weights(one).items()}
    loop.train(replace(one, recipe=replace(RECIPE, stages=stages)))
    changed = {name for name, tensor in weights(one).items() if not torch.equal(tensor, before[name])}
    assert changed == {"line.weight", "line.bias"}
    nobody = replace(RECIPE, stages=(replace(RECIPE.stages[0], trains=("lime",)),))
    with pytest.raises(UsageError, match="trains nothing"):
        loop.train(replace(one, recipe=nobody))


def test_a_sample_that_cannot_be_read_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    def unreadable(stage: Stage, rng: np.random.Generator) -> Sample:
        if stage.name == "second":
            raise ReadError("x.exr is damaged")
        return sample(stage, rng)

    for workers in (0, 1):
        one = run(tmp_path, sample=unreadable, workers=workers)
        with pytest.raises(ReadError, match=r"^x.exr is damaged$"):
            loop.train(one)
    straight, resumed = run(tmp_path / "a"), run(tmp_path)
    loop.train(straight)
    loop.train(resumed, resume=True)
    assert same(weights(straight), weights(resumed))


def test_reports_follow_the_run(tmp_path: Path) -> None:
    reports: list[loop.Report] = []
    loop.train(replace(run(tmp_path), watch=reports.append))
    assert [report.step for report in reports] == list(range(1, 21))
    assert [report.stage for report in reports] == ["first"] * 5 + ["second"] * 15
    assert all(0 <= report.left < 60 for report in reports) and reports[-1].left == 0
    assert reports[4].done == pytest.approx(0.25) and reports[-1].done == pytest.approx(1)
    assert [report.step for report in reports if report.scores] == [5, 10, 15, 20]
    assert reports[7].losses["size"] == 0 < reports[-1].losses["size"]


def test_a_run_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs an end"):
        loop.train(replace(run(tmp_path), budget=loop.Budget()))


def test_the_newest_state_of_another_network_is_refused(tmp_path: Path) -> None:
    loop.train(run(tmp_path))
    with pytest.raises(ReadError, match="of another network"):
        state.load(state.begin(nn.Linear(4, 1)), tmp_path)  # type: ignore[arg-type]
    (tmp_path / state.NEWEST).write_bytes(b"no state")
    with pytest.raises(ReadError, match="cannot be read"):
        loop.train(run(tmp_path), resume=True)


@pytest.mark.parametrize(
    ("schedule", "rates"), [("cosine", [1, 0.5, 0]), ("step", [1, 0.5, 0.125]), ("constant", [1, 1, 1])]
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    stage = Stage(name="s", rate=1, schedule=schedule)  # type: ignore[arg-type]
    assert [stage.rate_at(progress, 1000) for progress in (0, 0.5, 1)] == pytest.approx(rates)
    assert stage.rate_at(0, 0) == pytest.approx(0.02)
