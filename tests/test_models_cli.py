"""`hdr models` as a user meets it: what it prints, where, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from hdrcli import cards, nets, zoo
from hdrcli.cards import Card
from hdrcli.cli import models
from hdrcli.errors import UsageError, WeightsError

runner = CliRunner()
BUILD = {"iterations": 1, "width": 8}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's only folder with models; shipped ones lie beside it."""
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path / "own"))
    monkeypatch.setattr(cards.platformdirs, "user_data_path", lambda *_, **__: tmp_path / "data")
    monkeypatch.setattr(cards, "shipped_folder", lambda: tmp_path / "shipped")
    return tmp_path / "own"


def run(*arguments: object) -> Result:
    """Runs the command; errors that main() would render are raised."""
    return runner.invoke(models.app, [str(argument) for argument in arguments], catch_exceptions=False)


def trained(folder: Path, name: str = "lumen") -> Card:
    torch.manual_seed(3)
    state = nets.spec("fhdr").build(**BUILD).state_dict()
    facts: dict[str, Any] = {"build": BUILD, "licence": "MIT [really]", "origin": "trained on a test"}
    scores = {"hanji": {"pu_psnr": 26.5}}
    return zoo.save(name=name, net="fhdr", state=state, training={"steps": 3}, scores=scores, folder=folder, **facts)


def waiting(folder: Path, **changes: Any) -> Card:
    facts: dict[str, Any] = {
        "name": "fhdr-b",
        "net": "fhdr",
        "task": "expand",
        "file": "fhdr-b.safetensors",
        "sha256": "",
        "build": BUILD,
        "licence": "BSD-3-Clause",
        "origin": "its authors",
        "howto": "Ask its authors.\nThen: hdr models import fhdr x.ckpt --name fhdr-b",
        "folder": folder,
    }
    card = Card(**(facts | changes))
    cards.write_card(card)
    return card


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights, in a format that the network fhdr can import."""
    real = nets.spec("fhdr")
    importers = {"plain": lambda files, settings: torch.load(files[0], weights_only=True)}
    monkeypatch.setattr(nets, "spec", lambda name: replace(real, importers=importers))
    path = tmp_path / "x.ckpt"
    torch.save(real.build(**BUILD).state_dict(), path)
    return path


def test_list_as_json_has_the_fields_that_others_rely_on(tmp_path: Path, folder: Path) -> None:
    card = trained(tmp_path / "shipped")
    waiting(folder)
    result = run("list", "--json")
    found = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(found) == ["fhdr-b", "lumen"]
    expected = {"net": "fhdr", "task": "expand", "licence": "MIT [really]", "sha256": card.sha256, "default": True}
    assert expected.items() <= found["lumen"].items()
    assert found["lumen"]["ready"] is True
    assert (found["fhdr-b"]["ready"], found["fhdr-b"]["default"], found["fhdr-b"]["sha256"]) == (False, False, "")
    assert result.stderr == ""


def test_list_for_people_says_what_is_here_and_how_to_get_the_rest(tmp_path: Path, folder: Path) -> None:
    trained(tmp_path / "shipped")
    waiting(folder)
    waiting(folder, name="fhdr-c", file="fhdr-c.safetensors", sources=("https://a.example/x",), published={"x": ""})
    result = run("list")
    rows = [[cell for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["model", "task", "network", "weights", "licence"],
        ["fhdr-b", "expand", "fhdr", "to get by hand", "BSD-3-Clause"],
        ["fhdr-c", "expand", "fhdr", "to pull", "BSD-3-Clause"],
        ["lumen (default)", "expand", "fhdr", "here", "MIT [really]"],
    ]
    assert "hdr models show NAME" in result.stderr


def test_an_empty_list_is_an_empty_array() -> None:
    assert json.loads(run("list", "--json").stdout) == []


def test_show_prints_card_and_network(tmp_path: Path) -> None:
    card = trained(tmp_path / "shipped")
    text = run("show", "lumen").stdout
    spec = nets.spec("fhdr")
    for fact in (card.sha256, "MIT [really]", "trained on a test", "width = 8", "steps = 3", "26.5", spec.reference):
        assert fact in text, fact
    for line in (spec.paper, *spec.deviations):
        assert " ".join(line.split()[:5]) in text
    assert "default for expand" in text


def test_show_of_waiting_weights_prints_the_steps_to_get_them(folder: Path) -> None:
    waiting(folder, sources=("https://a.example/x",), published={"x": ""})
    text = run("show", "fhdr-b").stdout
    assert "run: hdr models pull fhdr-b" in text
    assert "hdr models import fhdr x.ckpt --name fhdr-b" in text


def test_show_of_an_unknown_model_helps(folder: Path) -> None:
    waiting(folder)
    with pytest.raises(WeightsError) as caught:
        run("show", "fhdr")
    assert caught.value.hint == "did you mean fhdr-b?"


def test_verify_passes_over_waiting_cards_and_reports_each_model(tmp_path: Path, folder: Path) -> None:
    trained(tmp_path / "shipped")
    waiting(folder)
    lines = run("verify").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "lumen"]
    assert "good" in lines[1]
    assert "good" in run("verify", "lumen").stdout


def test_verify_fails_when_one_model_does(folder: Path) -> None:
    trained(folder)
    card = trained(folder, "broken")
    card.weights.write_bytes(b"x")
    with pytest.raises(WeightsError, match="1 of 2 models did not verify: broken"):
        run("verify")
    with pytest.raises(WeightsError, match="1 of 1 models did not verify: broken"):
        run("verify", "broken")


def test_verify_of_missing_weights_says_how_to_get_them(folder: Path) -> None:
    waiting(folder)
    with pytest.raises(WeightsError, match="not on this machine") as caught:
        run("verify", "fhdr-b")
    assert "hdr models import" in caught.value.hint


def test_import_makes_a_model(folder: Path, published: Path) -> None:
    result = run(
        "import", "fhdr", published, "--name", "mine", "--licence", "BSD", "--set", "iterations=2", "--set", "width=8"
    )
    assert result.stdout == ""
    assert f"mine is in {folder}" in result.stderr
    card = cards.find("mine")
    assert (card.build, card.licence) == ({"iterations": 2, "width": 8}, "BSD")
    assert "good" in run("verify", "mine").stdout


def test_import_fills_a_waiting_card(tmp_path: Path, folder: Path, published: Path) -> None:
    waiting(tmp_path / "shipped")
    run("import", "fhdr", published, "--name", "fhdr-b")
    card = cards.find("fhdr-b")
    assert (card.folder, card.origin, card.build) == (folder, "its authors", BUILD)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("width", "is not KEY=VALUE"),
        ("=8", "is not KEY=VALUE"),
        ("colour=red", "has no setting 'colour'"),
        ("width=wide", "of the type int, not 'wide'"),
        ("width=8.5", "of the type int, not 8.5"),
    ],
)
def test_a_wrong_setting_is_refused(published: Path, setting: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        run("import", "fhdr", published, "--name", "mine", "--set", setting)


@pytest.mark.parametrize(
    ("text", "value"), [("a=2", 2), ("a=0.5", 0.5), ("a=true", True), ("a=b=c", "b=c"), ("a=", ""), ('a="2"', "2")]
)
def test_settings_are_numbers_truths_or_strings(text: str, value: object) -> None:
    assert models._setting(text) == ("a", value)


def test_pull_says_what_it_recorded(
    tmp_path: Path, folder: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(sources: Any, target: Path, *, sha256: str, progress: Any) -> str:
        target.parent.mkdir(parents=True)
        target.write_bytes(published.read_bytes())
        progress(target.stat().st_size, 0)
        return cards.digest(target)

    monkeypatch.setattr(zoo, "fetch", fetch)
    waiting(tmp_path / "shipped", sources=("https://a.example/x.ckpt",), published={"x.ckpt": ""})
    result = run("pull", "fhdr-b")
    assert result.stdout == ""
    assert f"no checksum of x.ckpt is known; the one received has SHA-256 {cards.digest(published)}" in result.stderr
    assert f"fhdr-b is whole and in {folder}" in result.stderr
    assert run("pull", "fhdr-b").stderr == f"fhdr-b is whole and in {folder}\n"


def test_remove_deletes_own_models_only(tmp_path: Path, folder: Path) -> None:
    trained(tmp_path / "shipped")
    trained(folder, "mine")
    assert "removed mine from" in run("remove", "mine").stderr
    assert list(folder.iterdir()) == []
    with pytest.raises(UsageError, match="lumen comes with hdrcli and is not removed"):
        run("remove", "lumen")
    assert cards.find("lumen").ready


def test_path_prints_the_folders_in_order(tmp_path: Path, folder: Path) -> None:
    expected = [str(folder), str(tmp_path / "data" / "models"), str(tmp_path / "shipped")]
    assert run("path").stdout.splitlines() == expected


def test_a_damaged_card_is_named(folder: Path) -> None:
    card = waiting(folder)
    cards.write_card(replace(card, net=""))
    with pytest.raises(WeightsError, match=r"fhdr-b.toml has a wrong 'net'"):
        run("list")


def test_list_and_path_need_no_heavy_library(folder: Path) -> None:
    code = (
        "import sys; from hdrcli.cli.models import app; app(sys.argv[1:], standalone_mode=False);"
        "print(sorted({'torch', 'cv2', 'rawpy', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["list", "--json"], ["list"], ["path"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stderr.splitlines()[-1] == "[]", arguments
