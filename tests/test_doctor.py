"""`hdr doctor`: what is whole is called good, and each kind of damage is found and explained."""

import json
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from hdrcli import cards
from hdrcli.cli.main import app
from hdrcli.tasks import doctor
from hdrcli.tasks.doctor import Finding, examine

runner = CliRunner()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's only folder with models, before the shipped ones."""
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path / "own"))
    monkeypatch.setattr(cards.platformdirs, "user_data_path", lambda *_, **__: tmp_path / "data")
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def own_lumen(folder: Path) -> cards.Card:
    """A copy of the shipped lumen in the user's folder, where it comes first."""
    shipped = cards.lookup("lumen")
    for file in (shipped.path, shipped.weights):
        shutil.copy(file, folder)
    return cards.lookup("lumen")


def found(subject: str) -> Finding:
    return next(finding for finding in doctor._models() if finding.subject == subject)


def test_what_is_installed_and_shipped_is_good() -> None:
    findings = {finding.subject: finding for finding in examine()}
    needed = [Requirement(line) for line in metadata.requires("hdrcli") or ()]
    shipped = [f"model {name}" for name, card in cards.cards().items() if card.ready]
    assert {"model lumen", "model lumenraw"} <= set(shipped)
    for subject in ("python", "cpu", *shipped, *(item.name for item in needed if item.marker is None)):
        assert findings[subject].state == "good", findings[subject]
    assert findings["models"].state == "note"
    assert "hdrisp-erbas" in findings["models"].detail


def test_damaged_weights_are_broken(folder: Path) -> None:
    weights = own_lumen(folder).weights
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "is not the file that its card names" in found("model lumen").detail
    done = runner.invoke(app, ["doctor", "--json"])
    report = json.loads(done.stdout)
    assert (done.exit_code, report["healthy"]) == (1, False)
    broken = {check["subject"] for check in report["checks"] if check["state"] == "broken"}
    assert "model lumen" in broken
    assert "model lumenraw" not in broken


def test_other_numbers_than_the_sample_are_broken(folder: Path) -> None:
    card = own_lumen(folder)
    card.sample["mean"][1] *= 1.01
    cards.write_card(card)
    finding = found("model lumen")
    assert finding.state == "broken"
    assert "other numbers" in finding.detail


def test_a_card_that_cannot_be_read_hides_no_other(folder: Path) -> None:
    (folder / "mine.toml").write_text("name = ")
    findings = {finding.subject: finding.state for finding in doctor._models()}
    assert findings["model mine"] == "broken"
    assert findings["model lumenraw"] == "good"


def test_a_default_model_without_weights_or_card_is_broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_lumen(folder).weights.unlink()
    assert "not on this machine" in found("model lumen").detail
    monkeypatch.setattr(cards, "shipped_folder", lambda: folder)
    assert found("model lumenraw").state == "broken"


@pytest.mark.parametrize(
    ("asked", "module", "needed", "state", "detail"),
    [
        ("frail>=1", None, True, "broken", "frail is not installed"),
        ("frail>=1", None, False, "note", "frail is not installed"),
        ("frail>=1", "", True, "good", "frail 1.5"),
        ("frail>=2", "", True, "note", "frail 1.5, but >=2 was asked for"),
        ("frail>=1", "raise OSError('libGL.so.1: no such file')", False, "broken", "libGL.so.1"),
    ],
)
def test_packages(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    module: str | None,
    needed: bool,
    state: str,
    detail: str,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "frail", raising=False)
    if module is not None:
        (tmp_path / "frail.py").write_text(module)
        (tmp_path / "frail-1.5.dist-info").mkdir()
        (tmp_path / "frail-1.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: frail\nVersion: 1.5\n")
    finding = doctor._package("frail", [Requirement(asked)], "frail", needed=needed)
    assert finding.state == state
    assert detail in finding.detail
    assert bool(finding.hint) == (state != "good")


def test_no_place_for_temporary_files_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "taken"))
    finding = next(iter(doctor._space()))
    assert finding.state == "broken"
    assert "TMPDIR" in finding.hint


def test_an_accelerator_is_judged_by_its_numbers(folder: Path) -> None:
    assert doctor._accelerator("cpu").state == "good"
    card = own_lumen(folder)
    card.sample["mean"][1] *= 1.2
    cards.write_card(card)
    finding = doctor._accelerator("cpu")
    assert finding.state == "broken"
    assert "other numbers" in finding.detail


def test_people_read_what_to_do(folder: Path) -> None:
    (folder / "mine.toml").write_text("name = ")
    done = runner.invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "good    model lumen: hash and sample agree" in done.stdout
    assert "        mend or delete that file" in done.stdout.splitlines()
