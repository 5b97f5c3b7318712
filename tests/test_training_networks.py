"""What each network learns from: samples that match their targets, losses that fall, models that work at once."""

import numpy as np
import pytest
import torch

from hdrcli import scene
from hdrcli.nets.hdrisp import HdrIsp
from hdrcli.training import hdrisp, pool, simulate
from hdrcli.training.recipe import Stage, Weight


@pytest.fixture(scope="module")
def views() -> list[pool.Float16]:
    room = scene.render(256, 192).repeat(2, axis=0).repeat(2, axis=1)
    return [pool.usable(room), pool.usable(room[::-1])]


def test_hues_turn_about_grey() -> None:
    for hue, saturation in ((0, 1), (20, 0.5), (-90, 1.4)):
        assert simulate.colour_change(hue, saturation) @ np.ones(3) == pytest.approx(np.ones(3))
    assert simulate.colour_change(0, 1) == pytest.approx(np.eye(3))
    grey = simulate.colour_change(0, 0) @ [1, 0.2, 0]
    assert grey == pytest.approx(np.full(3, 0.2126 + 0.2 * 0.7152))


def test_photographs_match_their_light(views: list[pool.Float16]) -> None:
    rng = np.random.default_rng(3)
    shot = simulate.photograph(views[0].astype(np.float32), rng, size=96, kind="clean")
    assert shot.codes.shape == shot.light.shape == (96, 96, 3)
    expected = shot.curve(np.clip(shot.light, 0, 1)) * 255
    assert np.abs(shot.codes - expected).max() <= 0.51
    assert (shot.light.max(axis=2) >= 1).mean() >= 0.01


def test_mosaics_match_their_finished_pictures(views: list[pool.Float16]) -> None:
    stage = Stage(name="s", options={"size": [96, 128], "whole": True})
    made = hdrisp.sample(views, stage, np.random.default_rng(0))
    assert made["planes"].shape == (4, 48, 64) and made["target"].shape == (3, 96, 128)
    seen = np.log(np.clip((made["planes"][1] + made["planes"][3]) / 2, 0.02, 0.9))
    wanted = np.asarray(made["target"])[1].reshape(48, 2, 64, 2).mean(axis=(1, 3))
    agreement = [
        np.corrcoef(np.diff(np.roll(seen, shift, axis=1))[:, 2:-2].ravel(), np.diff(wanted)[:, 2:-2].ravel())[0, 1]
        for shift in (-1, 0, 1)
    ]
    assert agreement[1] > 0.6 and agreement[1] > 1.2 * max(agreement[0], agreement[2]), agreement
    cropped = hdrisp.sample(
        views, Stage(name="s", options={"size": [64, 80], "whole": False}), np.random.default_rng(1)
    )
    assert cropped["planes"].shape == (4, 32, 40) and cropped["target"].shape == (3, 64, 80)


def test_hdrisp_with_a_skip_begins_with_a_demosaic() -> None:
    """A flat mosaic gives a flat picture of its own colour, and a bilinear ramp stays one inside."""
    network = HdrIsp(width=4, skip=True).eval()
    hdrisp.begin(network)
    assert network.skip is not None
    flat = torch.tensor([0.3, 0.5, 0.7, 0.5])[None, :, None, None].expand(1, 4, 8, 8)
    with torch.no_grad():
        out = network.skip(torch.nn.functional.pad(flat, (1, 1, 1, 1), mode="reflect"))
    wanted = hdrisp._CONTRAST * torch.tensor([0.7, 0.5, 0.3])[None, :, None, None].expand_as(out)
    torch.testing.assert_close(out, wanted)


@pytest.mark.parametrize("level", [0, 2])
def test_losses_of_hdrisp_vanish_at_the_target(views: list[pool.Float16], level: int) -> None:
    weights = {name: Weight(weight=1) for name in hdrisp.LOSSES}
    stage = Stage(name="s", loss=weights, options={"level": level, "size": [96, 128]})
    made = hdrisp.sample(views, stage, np.random.default_rng(0))
    batch = {name: torch.from_numpy(np.asarray(array))[None] for name, array in made.items()}

    class Perfect(HdrIsp):
        def at_level(self, planes: torch.Tensor, level: int) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(batch["target"], 2**level)

    for name, value in hdrisp.loss(Perfect(width=4), batch, stage).items():
        assert value == pytest.approx(0, abs=2e-4), name
    worse = hdrisp.loss(HdrIsp(width=4), batch, stage)
    assert all(value > 0.01 for value in worse.values())
