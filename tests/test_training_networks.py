"""What each network learns from: samples that match their targets, losses that fall, models that work at once."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hdrcli import camera
from hdrcli.errors import ReadError, WeightsError
from hdrcli.nets import fhdr as fhdr_net
from hdrcli.nets._autoencoder import highlight_mask
from hdrcli.nets.hdrcnn import LOG_OFFSET, MASK_RAMP, Hdrcnn
from hdrcli.nets.hdrisp import HdrIsp
from hdrcli.nets.singlehdr import CURVE_SAMPLES, SingleHdr
from hdrcli.scene import render
from hdrcli.training import expand, fhdr, hdrcnn, hdrisp, pool, simulate, singlehdr, temporal, vgg
from hdrcli.training.recipe import Stage, Weight


@pytest.fixture(scope="module")
def views() -> list[pool.Float16]:
    room = render(256, 192)
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
    shots = [
        simulate.photograph(views[0].astype(np.float32), np.random.default_rng(seed), size=96) for seed in range(20)
    ]
    assert sum((shot.light >= 1).any() for shot in shots) >= 15


def test_mosaics_match_their_finished_pictures(views: list[pool.Float16]) -> None:
    """Shifted by a pixel, they match less; of any scene, strong colours and shapes drawn over it included."""
    stage = Stage(name="s", options={"size": [96, 128], "whole": True})
    found = []
    for seed in range(6):
        made = hdrisp.sample(partial(hdrisp._simulated, views), stage, np.random.default_rng(seed))
        assert made["planes"].shape == (4, 48, 64) and made["target"].shape == (3, 96, 128)
        seen = np.log(np.clip((made["planes"][1] + made["planes"][3]) / 2, 0.02, 0.9))
        wanted = np.asarray(made["target"])[1].reshape(48, 2, 64, 2).mean(axis=(1, 3))
        found.append(
            [
                np.corrcoef(np.diff(np.roll(seen, shift, axis=1))[:, 2:-2].ravel(), np.diff(wanted)[:, 2:-2].ravel())
                for shift in (-1, 0, 1)
            ]
        )
    before, matched, after = np.mean(found, axis=0)[:, 0, 1]
    assert matched > 0.4 and matched > 2 * max(before, after), (before, matched, after)
    stage = Stage(name="s", options={"size": [64, 80], "whole": False})
    cropped = hdrisp.sample(partial(hdrisp._simulated, views), stage, np.random.default_rng(1))
    assert cropped["planes"].shape == (4, 32, 40) and cropped["target"].shape == (3, 64, 80)


def test_hdrisp_with_a_skip_begins_with_the_detail_of_a_demosaic() -> None:
    """A flat mosaic of one grey has none; of a bright pixel, the pixel itself is brighter than what lies around it."""
    network = HdrIsp(width=4, skip=True).eval()
    hdrisp.begin(network)
    assert network.skip is not None
    mosaic = torch.full((1, 4, 9, 9), 0.5)
    with torch.no_grad():
        flat = network.skip(torch.nn.functional.pad(mosaic, (1, 1, 1, 1), mode="reflect"))
        mosaic[:, 2, 4, 4] += 0.1  # a red one, at (8, 8) of the picture
        spot = network.skip(torch.nn.functional.pad(mosaic, (1, 1, 1, 1), mode="reflect"))[0] - flat[0]
    torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-5)
    assert spot[0, 8, 8] == spot.max() == pytest.approx(0.1 * hdrisp._CONTRAST * (1 - 1 / 9), rel=1e-4)
    assert float(spot[1:].abs().max()) == 0 and float(spot[0].sum()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("level", [0, 2])
def test_losses_of_hdrisp_vanish_at_the_target(views: list[pool.Float16], level: int) -> None:
    weights = {name: Weight(weight=1) for name in hdrisp.DIFFERENCES}
    stage = Stage(name="s", loss=weights, options={"level": level, "size": [192, 256]})
    made = hdrisp.sample(partial(hdrisp._simulated, views), stage, np.random.default_rng(0))
    batch = {name: torch.from_numpy(np.asarray(array))[None] for name, array in made.items()}

    class Perfect(HdrIsp):
        def at_level(self, planes: torch.Tensor, level: int) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(batch["target"], 2**level)

    for name, value in hdrisp.loss(Perfect(width=4), batch, stage).items():
        assert value == pytest.approx(0, abs=2e-4), name
    worse = hdrisp.loss(HdrIsp(width=4), batch, stage)
    assert all(value > 0.01 for value in worse.values())


def batch_of(made: Mapping[str, object]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(array))[None] for name, array in made.items()}


def weighted(*names: str, **options: object) -> Stage:
    return Stage(name="s", loss={name: Weight(weight=1) for name in names}, options=options)


def photograph_of(views: list[pool.Float16], size: int = 64) -> dict[str, torch.Tensor]:
    made = expand.sample(partial(expand._from_scenes, views), size, np.random.default_rng(4))
    return batch_of(made)


def test_losses_of_hdrcnn_vanish_at_the_target(views: list[pool.Float16]) -> None:
    batch = photograph_of(views)
    mask = highlight_mask(batch["codes"], MASK_RAMP)
    batch["light"] = torch.where(mask > 0, batch["light"], batch["codes"].square())
    perfect = Hdrcnn(width=4)
    perfect.autoencoder.forward = lambda codes: torch.log(batch["light"] + LOG_OFFSET)  # type: ignore[method-assign]
    parts = [name for name in hdrcnn.LOSSES if name not in temporal.PARTS]
    for name, value in hdrcnn.loss(perfect, batch, weighted(*parts)).items():
        assert float(value) < 0.02, f"{name} is {value:.3f}"
    worse = Hdrcnn(width=4)
    hdrcnn.begin(worse.autoencoder)
    found = hdrcnn.loss(worse, batch, weighted(*parts))
    assert all(value.detach() > 0.001 and value.requires_grad for value in found.values())


def smooth(count: int = 2, side: int = 48) -> torch.Tensor:
    places = torch.linspace(0, 3, side)
    waves = 0.5 + 0.3 * torch.sin(places[:, None] + torch.arange(3.0)[:, None, None]) * torch.cos(1.3 * places)
    return waves.expand(count, 3, side, side).contiguous()


def test_motions_are_small_and_differ() -> None:
    torch.manual_seed(0)
    codes = smooth(8)
    motion = temporal.random_motion(codes)
    changed = (motion(codes) - codes).abs().amax(dim=(1, 2, 3))
    assert changed.min() > 0.001 and changed.max() < 0.3
    assert len({f"{value:.5f}" for value in changed}) == 8
    assert 0.8 < motion.inside.mean() < 1
    rest = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 48, 48], align_corners=False)
    assert (motion.grid - rest).abs().max() * 24 < 2 + 24 * 0.08, "pixels"


@pytest.mark.parametrize(
    ("part", "steady", "flickering"),
    [
        ("stability", lambda x: torch.full_like(x, 0.5), lambda x: 9 * x),
        ("coherence", lambda x: x.square(), lambda x: x * torch.linspace(0, 9, 48)),
        ("jacobian", lambda x: x + 0.2, lambda x: x * torch.linspace(0, 9, 48)),
    ],
)
def test_what_does_not_move_more_than_the_picture_costs_nothing(
    part: str, steady: temporal.Compared, flickering: temporal.Compared
) -> None:
    codes = smooth()
    losses = []
    for network in (steady, flickering):
        torch.manual_seed(1)
        losses.append(float(temporal.PARTS[part](network, codes, network(codes), steady(codes))))
    assert losses[0] < 1e-5 and losses[1] > 100 * losses[0] + 1e-3


def test_regularisation_for_films_reaches_the_weights(views: list[pool.Float16]) -> None:
    network = Hdrcnn(width=4)
    hdrcnn.begin(network.autoencoder)
    for name, value in hdrcnn.loss(network, photograph_of(views), weighted(*temporal.PARTS)).items():
        network.zero_grad()
        value.backward(retain_graph=True)
        gradient = network.autoencoder.last_fuse.weight.grad
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name


def test_pictures_without_burnt_parts_are_linearised(tmp_path: Path) -> None:
    codes = (250 * smooth(1, 160)[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    good, burnt = tmp_path / "good.png", tmp_path / "burnt.png"
    cv2.imwrite(str(good), codes)
    cv2.imwrite(str(burnt), np.full_like(codes, 255))
    found, light = hdrcnn.linearised([burnt, good], 64, np.random.default_rng(0))
    assert found.shape == light.shape == (64, 64, 3) and found.dtype == np.uint8
    assert light.max() > 1 and np.corrcoef(found.ravel(), light.ravel())[0, 1] > 0.7
    with pytest.raises(ReadError, match="are saturated"):
        hdrcnn.linearised([burnt], 64, np.random.default_rng(0))
    with pytest.raises(ReadError, match="smaller than 256"):
        hdrcnn.linearised([good], 256, np.random.default_rng(0))


def test_singlehdr_takes_a_perceptual_part(views: list[pool.Float16]) -> None:
    stage = weighted("perceptual", step="hallucinate", size=64)
    batch = batch_of(singlehdr.sample(views, stage, np.random.default_rng(2)))
    seen = []

    class Distance(vgg.Vgg):
        def forward(self, given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            seen.append(wanted)
            return (given - wanted).square().mean()

    found = singlehdr.loss(SingleHdr(width=4), batch, stage, Distance((1, 1, 1, 1, 1)))
    assert found["perceptual"] > 0
    torch.testing.assert_close(seen[0], torch.log(1 + 10 * batch["light"]) / float(np.log(11)))


def test_illumination_and_reflectance_add_up() -> None:
    logarithm = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    illumination, reflectance = hdrcnn.separated(logarithm)
    torch.testing.assert_close(illumination + reflectance, logarithm)
    flat = torch.log(torch.tensor([0.2, 0.4, 0.8]))[None, :, None, None].expand(1, 3, 16, 16)
    luminance = 0.2126 * 0.2 + 0.7152 * 0.4 + 0.0722 * 0.8
    torch.testing.assert_close(hdrcnn.separated(flat)[0], torch.full((1, 1, 16, 16), float(np.log(luminance))))


def test_an_autoencoder_begins_by_adding_its_skips() -> None:
    network = Hdrcnn(width=4)
    hdrcnn.begin(network.autoencoder)
    a, b = torch.rand(2, 1, 3, 8, 8).unbind(0)
    torch.testing.assert_close(network.autoencoder.last_fuse((a, b)), a + b)


def test_losses_of_fhdr_vanish_at_the_target_and_leave_room_for_highlights(views: list[pool.Float16]) -> None:
    batch = photograph_of(views)
    batch["light"] = batch["light"].clamp(max=16)
    perfect = fhdr_net.FHDR(iterations=2, width=4, peak=16.0)
    perfect.iterates = lambda codes: [batch["light"] / 8 - 1] * 2  # type: ignore[method-assign]
    for name, value in fhdr.loss(perfect, batch, weighted("mu_law", "pu", "stops")).items():
        assert float(value) < 0.002, f"{name} is {value:.4f}"
    assert batch["light"].max() > 1


def test_the_peak_of_fhdr_scales_its_light() -> None:
    torch.manual_seed(0)
    plain = fhdr_net.FHDR(width=4)
    scaled = fhdr_net.FHDR(width=4, peak=16.0)
    scaled.load_state_dict(plain.state_dict())
    picture = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(scaled(picture, {}), 16 * plain(picture, {}))


def test_responses_come_back_from_their_components() -> None:
    network = SingleHdr(width=4, refine=False)
    singlehdr.begin(network, np.random.default_rng(0))
    rng = np.random.default_rng(9)
    codes = np.linspace(0, 1, CURVE_SAMPLES, dtype=np.float32)
    curves = torch.from_numpy(np.stack([camera.random_curve(rng).inverse(codes) for _ in range(40)]))
    mean, basis = network.response.mean, network.response.basis
    found = torch.linalg.lstsq(basis, (curves - mean).T).solution
    error = ((basis @ found).T + mean - curves).square().mean(dim=1).sqrt()
    assert error.median() < 0.002, f"median RMS error of a curve is {error.median():.4f}"
    assert 0.3 < found.std() < 2


@pytest.mark.parametrize("step", ["dequantize", "linearize", "hallucinate", "joint", "refine"])
def test_every_step_of_singlehdr_learns_its_part(views: list[pool.Float16], step: str) -> None:
    parts = {"dequantize": ["dequantize"], "linearize": ["linearize", "curve"], "hallucinate": ["hallucinate"]}
    reached = {
        "dequantize": {"dequantization"},
        "linearize": {"features", "response"},
        "hallucinate": {"hallucination"},
        "joint": {"dequantization", "features", "response", "hallucination"},
        "refine": {"dequantization", "features", "response", "hallucination", "refinement"},
    }
    stage = weighted(*parts.get(step, ["pu", "stops"]), step=step, size=64)
    batch = batch_of(singlehdr.sample(views, stage, np.random.default_rng(2)))
    network = SingleHdr(width=4)
    singlehdr.begin(network, np.random.default_rng(0))
    torch.stack(list(singlehdr.loss(network, batch, stage).values())).sum().backward()
    learning = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning == reached[step]


def test_scores_of_a_perfect_network_are_perfect(views: list[pool.Float16]) -> None:
    shot = simulate.photograph(views[0].astype(np.float32), np.random.default_rng(0), kind="noisy")
    held = expand._held(shot.codes, shot.light)

    class Perfect(Hdrcnn):
        def whole(self, image: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(shot.light).permute(2, 0, 1)[None]

    perfect = expand.score(Perfect(width=4), [held])
    assert perfect["pu_psnr"] > 60 and perfect["stops_clip"] < 0.001
    assert perfect["error"] < expand.score(Hdrcnn(width=4), [held])["error"]


@pytest.mark.parametrize("count", [16, 19])
def test_vgg_takes_the_tensors_of_published_files(count: int) -> None:
    """Names and shapes are torchvision's: convolutions at these places of its `features`."""
    places = {
        16: [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
        19: [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
    }
    made = vgg.Vgg(vgg._CONVOLUTIONS[f"vgg{count}"])
    convolutions = [layer for layer in made.modules() if isinstance(layer, torch.nn.Conv2d)]
    state = {}
    for place, layer in zip(places[count], convolutions, strict=True):
        state |= {f"features.{place}.weight": torch.full_like(layer.weight, 0.01), f"features.{place}.bias": layer.bias}
    filled = vgg.fill(made, state)
    assert all((layer.weight == 0.01).all() for layer in convolutions)
    a, b = torch.rand(2, 1, 3, 32, 32).unbind(0)
    assert [tuple(x.shape[1:]) for x in filled.features(a)] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    assert filled(a, a) == 0 < filled(a, b)


def test_vgg_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="none of"):
        vgg.load(tmp_path / "vgg.pth")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"not it")
    with pytest.raises(WeightsError, match="missing or damaged"):
        vgg.load(tmp_path / "vgg16-397923af.pth")
