"""`hdr train` as its users meet it: files, exit codes, pauses, several processes."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.numpy
import torch
from program import write_mosaic
from typer.testing import CliRunner

from hdrcli import cards, codecs, scene
from hdrcli.cli.main import app
from hdrcli.errors import HdrError, ReadError, UsageError
from hdrcli.image import Image, Transfer
from hdrcli.tasks import train as task
from hdrcli.training import data, pool, recipe

TINY = """
net = "{net}"
precision = "fp32"
checks = 2
build = {{ width = 4 }}

[[stages]]
name = "only"
batch = 2
loss = {{ {loss} = 1.0 }}
options = {{ size = {size} }}
"""
NETS = {
    "hdrcnn": ("stops", "64"),
    "fhdr": ("mu_law", "32"),
    "singlehdr": ("hallucinate", "64"),
    "hdrisp": ("mse", "[32, 48]"),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    room = scene.render(192, 144)
    for part in ("train", "val"):
        (folder / part).mkdir()
        codecs.write(Image(room, Transfer.LINEAR), folder / part / "room.exr", "exr")
    return folder


@pytest.fixture(autouse=True)
def lean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small views, one thread, and a ceiling that is said instead of measured; test_bench measures it."""
    monkeypatch.setattr(pool, "WIDTH", 128)
    monkeypatch.setattr(pool, "HEIGHT", 96)
    monkeypatch.setattr(task, "ceiling", lambda device, precision: 100.0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path / "models"))
    return tmp_path / "models"


def tiny(folder: Path, net: str) -> Path:
    loss, size = NETS[net]
    path = folder / f"{net}.toml"
    path.write_text(TINY.format(net=net, loss=loss, size=size))
    return path


def command(net: str, scenes: Path, tmp_path: Path, *more: str) -> list[str]:
    return ["train", net, "--data", str(scenes), "-o", "mine", "--recipe", str(tiny(tmp_path, net)), *more]


@pytest.mark.parametrize("net", list(NETS))
def test_a_trained_model_works_at_once(net: str, scenes: Path, models: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, command(net, scenes, tmp_path, "--steps", "2"), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    card = cards.find("mine")
    assert card.net == net and card.build["width"] == 4
    assert card.training["steps"] == 2 and card.training["recipe"]["stages"][0]["batch"] == 2
    assert card.training["vgg"] == "none" and "samples/s" in done.output
    assert card.training["samples_per_second"] > 0 and 0 < card.training["share_of_ceiling"] < 2
    assert ("val_input" in card.scores) == ("(input: " in done.output) == (card.task == "expand")
    place = models / "mine.training"
    with (place / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"] and float(rows[0]["loss"]) > 0
    assert any(name.startswith("val/") for name in rows[0])
    for name in ("curves.png", "pictures.png"):
        assert codecs.read(place / name).pixels.std() > 0.01
    sample = tmp_path / ("x.png" if card.task == "expand" else "x.dng")
    if card.task == "expand":
        codecs.write(Image(np.full((40, 48, 3), 0.7, np.float32), Transfer.SRGB), sample, "png")
    else:
        write_mosaic(str(sample))
    used = CliRunner().invoke(app, [card.task, str(sample), "--model", "mine", "-o", str(tmp_path / "out") + "/"])
    assert used.exit_code == 0, used.output


def test_check_lists_what_cannot_be_used(scenes: Path, models: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "data" / part).mkdir(parents=True)
        (tmp_path / "data" / part / "good.exr").write_bytes((scenes / "train" / "room.exr").read_bytes())
    damaged = tmp_path / "data" / "train" / "damaged.exr"
    damaged.write_bytes(b"v/1\x01 not much else")
    checked = CliRunner().invoke(app, command("hdrcnn", tmp_path / "data", tmp_path, "--check"))
    assert checked.exit_code == 1 and "damaged.exr" in checked.output and "good" not in checked.output
    refused = CliRunner().invoke(app, command("hdrcnn", tmp_path / "data", tmp_path, "--steps", "1"))
    assert isinstance(refused.exception, ReadError) and "damaged.exr" in refused.exception.message
    damaged.unlink()
    assert CliRunner().invoke(app, command("hdrcnn", tmp_path / "data", tmp_path, "--check")).exit_code == 0
    assert not models.exists()


LIGHT = np.random.default_rng(0).gamma(1, 0.5, (64, 96, 3)).astype(np.float32)


def write_pairs(folder: Path) -> Path:
    for part in ("train", "test"):
        for kind in ("LDR", "HDR"):
            (folder / part / kind).mkdir(parents=True)
        codecs.write(Image(np.sqrt(LIGHT.clip(0, 1)), Transfer.SRGB), folder / part / "LDR" / "a.png", "png")
        codecs.write(Image(LIGHT, Transfer.LINEAR), folder / part / "HDR" / "a.hdr", "hdr")
    return folder


def test_pairs_are_learned_from_and_checked(models: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    arguments = command("hdrcnn", tmp_path, tmp_path, "--steps", "1")
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    codecs.write(Image(LIGHT[:60], Transfer.LINEAR), tmp_path / "train" / "HDR" / "a.hdr", "hdr")
    checked = CliRunner().invoke(app, command("hdrcnn", tmp_path, tmp_path, "--check"))
    assert checked.exit_code == 1 and "96 x 64 pixels, but a.hdr 96 x 60" in checked.output
    (tmp_path / "train" / "LDR" / "b.png").write_bytes((tmp_path / "train" / "LDR" / "a.png").read_bytes())
    lonely = CliRunner().invoke(app, command("hdrcnn", tmp_path, tmp_path, "--check"))
    assert isinstance(lonely.exception, UsageError) and "holds 2 pictures" in lonely.exception.message


def test_raw_pairs_are_learned_from_and_checked(models: Path, tmp_path: Path) -> None:
    """In the layout of the Zurich data set: mosaics as PNG files with 10 bits, RGGB, and finished pictures."""
    picture = scene.render(96, 64)
    mosaic = np.empty((64, 96), np.uint16)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = np.rint(1023 * picture[row::2, column::2, channel].clip(0, 1))
    for part in ("train", "test"):
        for kind in ("huawei_raw", "canon"):
            (tmp_path / part / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / part / "huawei_raw" / "7.png"), mosaic)
        codecs.write(Image(np.sqrt(picture.clip(0, 1)), Transfer.SRGB), tmp_path / part / "canon" / "7.jpg", "jpg")
    arguments = command("hdrisp", tmp_path, tmp_path, "--steps", "1")
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    planes, target = data.read_raw_pair(*(tmp_path / "train" / name for name in ("huawei_raw/7.png", "canon/7.jpg")))
    green = (planes[1] + planes[3]) / 2
    seen = target[:, :, 1].reshape(32, 2, 48, 2).mean(axis=(1, 3))
    assert np.corrcoef(np.sqrt(green).ravel(), seen.ravel())[0, 1] > 0.98
    codecs.write(Image(np.full((64, 64, 3), 0.5, np.float32), Transfer.SRGB), tmp_path / "train/canon/7.jpg", "jpg")
    checked = CliRunner().invoke(app, command("hdrisp", tmp_path, tmp_path, "--check"))
    assert checked.exit_code == 1 and "96 x 64 pixels, but 7.jpg 64 x 64" in checked.output


def order(scenes: Path, models: Path, tmp_path: Path, name: str = "mine", **more: object) -> task.Order:
    made = task.Order(net="hdrcnn", data=scenes, name=name, recipe=str(tiny(tmp_path, "hdrcnn")), steps=4)
    return replace(made, **more)  # type: ignore[arg-type]


def test_ctrl_c_saves_and_resume_goes_on_to_the_bit(scenes: Path, models: Path, tmp_path: Path) -> None:
    straight = task.train(order(scenes, models, tmp_path))

    def interrupt(report: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        task.train(order(scenes, models, tmp_path, "paused"), watch=interrupt)
    with pytest.raises(UsageError, match="already"):
        task.train(order(scenes, models, tmp_path, "paused"))
    resumed = task.train(order(scenes, models, tmp_path, "paused", recipe=None, steps=None, resume=True))
    assert resumed.sha256 == straight.sha256
    rows = (models / "paused.training" / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "4"]


def test_a_recipe_must_make_sense(scenes: Path, models: Path, tmp_path: Path) -> None:
    path = tiny(tmp_path, "hdrcnn")
    good = path.read_text()
    for old, new, says in (
        ("stops = 1.0", "stop = 1.0", "asks for a loss 'stop'"),
        ("size = 64", "sise = 64", "asks for a option 'sise'"),
        ("batch = 2", "batch = 0", "'batch' that cannot be 0"),
        ("batch = 2", "bach = 2", "unknown field 'bach'"),
        ('name = "only"', "", "lacks the field 'name'"),
        ("[[stages]]", "[stages]", "has no"),
        ("net =", "net", "is no TOML"),
    ):
        wrong = order(scenes, models, tmp_path)
        path.write_text(good.replace(old, new))
        with pytest.raises(UsageError, match=says):
            task.train(wrong)
    assert not models.exists()


def test_shipped_recipes_fit_their_networks() -> None:
    for name in recipe.shipped():
        one = recipe.load(name)
        assert one.net in task.trainable()
        task._check_recipe(one, task._module(one.net))


def test_perceptual_parts_need_weights(
    scenes: Path, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny(tmp_path, "fhdr")
    path.write_text(path.read_text().replace("mu_law = 1.0", "mu_law = 1.0, perceptual = 1.0"))
    made = task.train(order(scenes, models, tmp_path, net="fhdr", recipe=str(path), steps=1))
    assert made.training["recipe"]["stages"][0]["loss"] == {"mu_law": 1.0}
    assert "without the perceptual part" in caplog.text


def test_one_stage_alone_from_the_weights_of_a_model(scenes: Path, models: Path, tmp_path: Path) -> None:
    text = tiny(tmp_path, "hdrcnn").read_text()
    path = tmp_path / "two.toml"
    path.write_text(text + text.split("\n\n")[1].replace("only", "second"))
    first = task.train(order(scenes, models, tmp_path, recipe=str(path), stage="only", steps=1))
    assert [stage["name"] for stage in first.training["recipe"]["stages"]] == ["only"]
    still = path.with_name("still.toml")
    still.write_text(path.read_text().replace("width = 4", "width = 8").replace('"second"', '"second"\nrate = 1e-9'))
    more = {"recipe": str(still), "stage": "second", "begin": "mine", "steps": 1}
    second = task.train(order(scenes, models, tmp_path, "next", **more))
    assert second.build["width"] == 4 and second.training["from"] == "mine"
    one, two = (safetensors.numpy.load_file(card.weights) for card in (first, second))
    name = "autoencoder.encoder.0.0.weight"
    np.testing.assert_allclose(one[name].astype(np.float32), two[name].astype(np.float32), atol=1e-3)
    with pytest.raises(UsageError, match="has no stage 'third'"):
        task.train(order(scenes, models, tmp_path, "x", recipe=str(path), stage="third"))
    with pytest.raises(UsageError, match="a model of hdrcnn, not of fhdr"):
        task.train(order(scenes, models, tmp_path, "x", net="fhdr", recipe=str(tiny(tmp_path, "fhdr")), begin="mine"))


def test_ordinary_pictures_come_before_scenes(scenes: Path, models: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for part in ("train", "val"):
        (data / part).symlink_to(scenes / part)
    path = tmp_path / "before.toml"
    path.write_text(tiny(tmp_path, "hdrcnn").read_text().replace("size = 64", "size = 64, linearised = true"))
    with pytest.raises(ReadError, match="no pictures to begin with"):
        task.train(order(data, models, tmp_path, recipe=str(path)))
    (data / "pretrain").mkdir()
    picture = np.random.default_rng(0).uniform(0, 0.9, (80, 96, 3)).astype(np.float32)
    codecs.write(Image(picture, Transfer.SRGB), data / "pretrain" / "a.png", "png")
    assert task.train(order(data, models, tmp_path, recipe=str(path), steps=1)).training["steps"] == 1
    (data / "pretrain" / "b.png").write_bytes(b"\x89PNG no more")
    assert [path.name for path, _ in task.faults(order(data, models, tmp_path))] == ["b.png"]


def test_a_broken_step_keeps_the_state_and_says_so(
    scenes: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hdrcli.training import expand

    calls: list[int] = []
    real = expand.stops_error

    def breaks(*tensors: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return real(*tensors) * (torch.inf if len(calls) == 4 else 1)

    monkeypatch.setattr(expand, "stops_error", breaks)
    with pytest.raises(HdrError, match="the loss of step 4") as caught:
        task.train(order(scenes, models, tmp_path))
    assert "--resume" in caught.value.hint
    assert cards.find("mine").training["steps"] == 3
    again = order(scenes, models, tmp_path, recipe=None, steps=None, resume=True)
    assert task.train(again).training["steps"] == 4


def test_two_processes_train_as_one(models: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path)
    alone = order(pairs, models, tmp_path, "alone", net="fhdr", recipe=str(tiny(tmp_path, "fhdr")), steps=3)
    task.train(alone)
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "hdrcli"]
    arguments = ["train", "fhdr", "--data", str(pairs), "-o", "pair", "--recipe", alone.recipe or "", "--steps", "3"]
    done = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    one, two = (
        torch.load(models / f"{name}.training" / "newest.pt", weights_only=True)["network"]
        for name in ("alone", "pair")
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
    assert cards.find("pair").training["steps"] == 3
