"""Training: the parts keep their promises, and a short run from the command line gives a model that works at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hdrcli import camera, cards, codecs, scene
from hdrcli.cli.main import app
from hdrcli.cli.train import duration
from hdrcli.color import Float32
from hdrcli.errors import UsageError
from hdrcli.image import Image, Transfer
from hdrcli.nets import lumen as net
from hdrcli.training import expand, lumen, pool, simulate


@pytest.fixture(scope="module")
def room() -> Float32:
    return scene.render(256, 192).repeat(2, axis=0).repeat(2, axis=1)


def test_the_basis_holds_curves_that_it_was_not_made_from() -> None:
    rng = np.random.default_rng(0)
    tables = torch.from_numpy(np.stack([lumen.curve_table(camera.random_curve(rng)) for _ in range(400)]))
    network = net.Lumen(**net.SPEC.tiny)
    lumen.set_curves(network, tables[:300])
    steps = torch.log(tables[300:].diff(dim=1).clamp(min=1e-6)) - network.curve_mean
    basis = torch.cat([network.curve_basis, torch.ones(1, 255)])  # a factor on all steps changes no curve
    with torch.no_grad():
        found = network.curve(torch.linalg.lstsq(basis.T, steps.T).solution[:-1].T)
    error = (found - tables[300:]).square().mean(dim=1).sqrt()
    assert error.median() < 0.003, f"median RMS error of a curve is {error.median():.4f}"


def test_a_member_guesses_curves_of_scenes_that_it_has_not_seen(room: Float32) -> None:
    rng = np.random.default_rng(1)
    large = room.repeat(2, axis=1)[:384, :512]
    scenes = [pool.Scene(str(number), large * np.float32(number + 1), sky=False) for number in range(net.MEMBERS)]
    rows, kept = lumen.photographs(scenes, 16, rng)
    network = net.Lumen(**net.SPEC.tiny)
    guesses = lumen.fit_estimator(network, rows, seed=0)
    own = rows.scene == 2
    assert own.any(), "no photograph of the scene"
    with torch.no_grad():
        member = network.curve(network.estimator.members[2](network.normalise(rows.found[own])))
    assert torch.equal(guesses[own], member)
    assert len(kept) == 6 and kept[1][0] == 3


def test_gains_are_those_of_the_light() -> None:
    codes = torch.randint(0, 250, (2, 64, 3), dtype=torch.uint8)
    curves = torch.linspace(0, 1, 256).square().expand(2, -1)
    light = torch.gather(curves, 1, codes.long().flatten(1)).view(2, 64, 3) * torch.tensor([0.5, 2.0])[:, None, None]
    rows = lumen.Rows(torch.zeros(2), torch.zeros(2, 1), curves, codes, light)
    torch.testing.assert_close(lumen.gains(curves, rows), torch.tensor([0.5, 2.0]), rtol=1e-2, atol=0)


def test_a_sample_of_mosaics_matches_its_target(room: Float32) -> None:
    planes, target = simulate.mosaic(room, np.random.default_rng(2), bits=14)
    blocks = target.reshape(192, 2, 256, 2, 3).mean(axis=(1, 3))
    found = np.stack([planes[2], (planes[1] + planes[3]) / 2, planes[0]], axis=-1)
    middle = (blocks.max(axis=2) > 0.02) & (blocks.max(axis=2) < 1)
    stops = np.median(np.log2(np.maximum(found[middle], 1e-4) / blocks[middle]))
    assert abs(stops) < 0.4, f"the mosaic is {stops:+.2f} stops from its target"


def test_a_recoloured_scene_keeps_its_greys(room: Float32) -> None:
    grey = np.repeat(room[:, :, :1], 3, axis=2)
    changed = 0
    for seed in range(20):
        np.testing.assert_allclose(simulate.recoloured(grey, np.random.default_rng(seed)), grey, rtol=1e-4, atol=1e-5)
        changed += not np.array_equal(simulate.recoloured(room, np.random.default_rng(seed)), room)
    assert 4 <= changed <= 16, f"{changed} of 20 were changed"


def test_slopes_are_those_of_the_error_inside_what_is_weighed() -> None:
    wanted = torch.ones(1, 3, 4, 5)
    light = wanted * 2.0 ** torch.arange(5.0)  # each column one stop above the last one
    where = torch.ones(1, 1, 4, 5)
    assert float(expand.slopes_error(light, wanted, where)) == pytest.approx(16 / 20, rel=1e-2)
    where[..., 2] = 0
    assert float(expand.slopes_error(light, wanted, where)) == pytest.approx(8 / 16, rel=1e-2)
    assert float(expand.slopes_error(3 * wanted, wanted, where)) == 0


def test_shapes_are_drawn_over_a_scene(room: Float32) -> None:
    drawn = simulate.drawn_on(room, np.random.default_rng(3))
    changed = (drawn != room).any(axis=2).mean()
    assert drawn.shape == room.shape and drawn.min() >= 0 and 0.001 < changed < 1, f"{changed:.1%} of the scene changed"


def test_scenes_that_are_only_sky_count_less() -> None:
    pixels = np.ones((400, 800, 3), np.float32)
    scenes = [pool.Scene("a", pixels, sky=False), pool.Scene("b_puresky", pixels, sky=True)]
    assert len(pool.views(scenes, 3, seed=0)) == 4
    assert len(pool.windows(scenes, 3, seed=0)) == 3


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("2h", 7200), ("1.5s", 1.5)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "-5m", "0s", "1 h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        duration(text)


def test_a_short_run_gives_a_model_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: Float32) -> None:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path / "models"))
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        codecs.write(Image(room, Transfer.LINEAR), tmp_path / part / "room.exr", "exr")
    command = ["train", "lumenraw", "--data", str(tmp_path), "-o", "mine", "--time-limit", "1s"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    card = cards.find("mine")
    assert card.training["seed"] == 0 and card.scores["val"]["psnr"] > 10
    assert card.training["recipe"]["stages"][0]["name"] == "look"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "fhdr2", "--data", ".", "-o", "x"], "cannot be trained"),
        (["train", "lumen", "--data", "nowhere", "-o", "x"], "has no folder train"),
        (["train", "lumen", "--data", ".", "-o", "x", "--resume"], "no training of x has begun"),
        (["train", "lumen", "--data", ".", "-o", "x", "--recipe", "lumenraw"], "is for lumenraw"),
        (["train", "lumen", "--data", ".", "-o", "x", "--recipe", "none.toml"], "there is no recipe"),
        (["train", "lumen", "--data", ".", "-o", "../x"], "name"),
    ],
)
def test_bad_requests_are_refused_before_any_work(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path))
    result = CliRunner().invoke(app, arguments)
    assert says in str(result.exception), result.exception
