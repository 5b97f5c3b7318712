"""Frames of one clip share a response curve; numbered names stand for frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from standins import known_model, save_standin

from hdrcli import camera, codecs, files, zoo
from hdrcli.cards import read_card
from hdrcli.cli.convert import studied_sources
from hdrcli.errors import UsageError
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.network import Context, Network
from hdrcli.sensor import Mosaic
from hdrcli.tasks.develop import Balance, Clip, clip_of, develop_mosaic
from hdrcli.tasks.expand import Feed, expand_image
from hdrcli.tasks.sequence import steady
from hdrcli.tiling import Tiling, Windows


class Fitted(Network):
    """Gives code values times the mean of the picture it was prepared from: a curve that flickers."""

    def __init__(self) -> None:
        super().__init__()
        self.tiling = Tiling(multiple_of=1)

    def prepare(self, image: Windows) -> Context:
        return {"mean": image[:, :, : image.shape[2], : image.shape[3]].mean().view(1)}

    def forward(self, tile: torch.Tensor, context: Context) -> torch.Tensor:
        return tile * context["mean"]


def frame(level: float) -> Image:
    """A wall whose left half stays as it is while the right half gets brighter."""
    pixels = np.full((24, 32, 3), 0.4, np.float32)
    pixels[:, 16:] = level
    return Image(pixels, Transfer.SRGB)


LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def wall(model: zoo.Model, tile: int | None = None) -> np.ndarray:
    """How bright the part that does not change comes out in each frame."""
    compute = Compute(tile=tile)
    return np.array([expand_image(model, frame(level), compute=compute).image.pixels[:, :8].mean() for level in LEVELS])


@pytest.mark.parametrize("tile", [None, 16])
def test_what_does_not_change_does_not_flicker(tile: int | None) -> None:
    model = replace(known_model("expand"), network=Fitted())
    assert np.ptp(wall(model, tile)) > 0.1
    held = steady(model, [Feed(frame(level), 1.0, 1.0) for level in LEVELS])
    assert np.ptp(wall(held, tile)) == 0
    assert wall(held, tile)[0] == pytest.approx(wall(model, tile).mean(), rel=1e-5)


def test_our_own_network_keeps_one_curve(tmp_path: Path) -> None:
    save_standin("lumen", tmp_path)
    model = zoo.open_card(read_card(tmp_path / "lumen.toml"))
    held = steady(model, [Feed(frame(level), 1.0, 1.0) for level in LEVELS])
    assert np.ptp(wall(held)) < 1e-6
    curve = held.network.prepare(torch.zeros(1, 3, 8, 8))["curve"]
    assert bool((curve.diff() >= 0).all())


def test_networks_without_a_context_stay_as_they_are() -> None:
    model = known_model("expand")
    assert steady(model, [Feed(frame(0.5), 1.0, 1.0)]) is model


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 1, 2]), (9, [0, 2, 4, 6, 8])])
def test_frames_that_are_studied_span_the_clip(
    count: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [files.Job(Path(__file__).with_name(f"{index}"), Path("x")) for index in range(count)]
    monkeypatch.setattr(files, "existing", lambda source: source)
    assert [int(source.name) for source in studied_sources(jobs)] == expected


def test_numbered_names_stand_for_frames(tmp_path: Path) -> None:
    for name in ("f_0002.png", "f_0010.png", "f_12345.png", "f_1.png", "f_abcd.png", "g_0001.png"):
        codecs.write(frame(0.5), tmp_path / name, "png")
    found = [Path(name).name for name in files.frames(str(tmp_path / "f_%04d.png"))]
    assert found == ["f_0002.png", "f_0010.png", "f_12345.png"]
    assert Path(files.frames(str(tmp_path / "f_%d.png"))[0]).name == "f_1.png"
    assert files.frames("a.png") == ["a.png"]
    for missing in ("h_%04d.png", "no/h_%d.png"):
        with pytest.raises(UsageError, match="no file like"):
            files.frames(str(tmp_path / missing))


def shot(level: float) -> Mosaic:
    """A grey wall that stays as it is beside one that gets brighter, and a lamp that keeps the exposure of the shot."""
    scene = np.full((64, 96, 3), 0.2, np.float32)
    scene[:, 48:] = level
    scene[:, 92:] = 1
    sensor = replace(camera.random_sensor(np.random.default_rng(1), bits=14), shot=0.0, read=0.0)
    return camera.record(scene, sensor, 0.001, np.random.default_rng(2))


@pytest.mark.parametrize("balance", ["camera", "auto"])
def test_developed_frames_share_their_exposure(balance: Balance) -> None:
    mosaics = [shot(level) for level in (0.05, 0.1, 0.2, 0.4)]
    model = known_model("develop")

    def wall(clip: Clip | None) -> np.ndarray:
        made = [develop_mosaic(model, mosaic, look="none", clip=clip, compute=Compute()).image for mosaic in mosaics]
        return np.array([image.to(Transfer.LINEAR).pixels[8:-8, 8:40].mean() for image in made])

    assert np.ptp(np.log2(wall(None))) > 0.5
    held = wall(clip_of(mosaics, balance, None))
    assert np.ptp(np.log2(held)) < 0.02
    assert wall(None).min() < held[0] < wall(None).max()
    with pytest.raises(UsageError, match="flicker"):
        clip_of(mosaics, balance, "reinhard")
