"""Cards: where they are looked for, how they are read, written, refused and removed."""

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from hdrcli import cards
from hdrcli.cards import Card
from hdrcli.errors import UsageError, WeightsError

GOOD: dict[str, Any] = {
    "name": "good",
    "net": "fhdr",
    "task": "expand",
    "file": "good.safetensors",
    "sha256": "",
    "licence": "MIT",
    "origin": "made up",
    "build": {"iterations": 2},
}
SAMPLE = {"tolerance": 1e-3, "mean": [0.1, 0.2, 0.3], "values": [[1.0, 2.0, 3.0]]}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """Three empty folders in the order in which they are searched: named, the user's, shipped."""
    named, data, shipped = (tmp_path / name for name in ("named", "data/models", "shipped"))
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(named))
    monkeypatch.setattr(cards.platformdirs, "user_data_path", lambda *_, **__: data.parent)
    monkeypatch.setattr(cards, "shipped_folder", lambda: shipped)
    for folder in (named, data, shipped):
        folder.mkdir(parents=True)
    return named, data, shipped


def put(folder: Path, name: str = "good", weights: bytes | None = None, **changes: object) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(GOOD | {"name": name, "file": f"{name}.safetensors"} | changes), encoding="utf-8")
    if weights is not None:
        (folder / f"{name}.safetensors").write_bytes(weights)
    return path


def test_folders_are_searched_in_order(places: tuple[Path, ...]) -> None:
    assert cards.folders() == places
    assert cards.own_folders() == places[:2]
    for depth in (2, 1, 0):
        put(places[depth], origin=f"place {depth}")
        assert cards.lookup("good").origin == cards.cards()["good"].origin == f"place {depth}"
        assert cards.lookup("good").folder == places[depth]


def test_without_the_variable_the_users_folder_comes_first(
    places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cards.FOLDER_VARIABLE)
    assert cards.folders() == places[1:]


def test_folders_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cards.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    assert "good" not in cards.cards()


def test_cards_come_in_alphabetical_order(places: tuple[Path, ...]) -> None:
    for place, name in zip(places, ("zebra", "ape", "moth"), strict=True):
        put(place, name)
    assert list(cards.cards()) == ["ape", "moth", "zebra"]


def test_each_task_has_its_default() -> None:
    assert cards.default_model("expand") == "lumen"
    assert cards.default_model("develop") == "lumenraw"


def test_an_unknown_name_gets_the_names_that_come_close(places: tuple[Path, ...]) -> None:
    put(places[2], "singlehdr-liu2020")
    put(places[2], "lumen")
    put(places[2], "singlehdr-b")
    for asked, hint in {
        "singlehdr": "did you mean singlehdr-b or singlehdr-liu2020?",
        "lumne": "did you mean lumen?",
        "": "models: lumen, singlehdr-b, singlehdr-liu2020",
        "qqq": "models: lumen, singlehdr-b, singlehdr-liu2020",
    }.items():
        with pytest.raises(WeightsError, match=f"no model named {asked!r}") as caught:
            cards.find(asked)
        assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["../good", "named/good", "", ".", "good.toml", "/etc/passwd"])
def test_a_name_is_never_a_path(places: tuple[Path, ...], name: str) -> None:
    put(places[1])
    with pytest.raises(WeightsError, match="there is no model"):
        cards.lookup(name)


def test_a_card_without_weights_is_found_but_not_ready(places: tuple[Path, ...]) -> None:
    put(places[0], howto="Ask the author.", sources=["https://example.org/x"], published={"x.npz": ""})
    assert not cards.lookup("good").ready
    with pytest.raises(WeightsError, match="weights of good are not on this machine") as caught:
        cards.find("good")
    assert caught.value.hint == "run: hdr models pull good\nAsk the author."


@pytest.mark.parametrize(
    ("sha256", "weights", "ready"), [("a" * 64, b"x", True), ("", b"x", False), ("a" * 64, None, False)]
)
def test_ready_needs_a_hash_and_a_file(
    places: tuple[Path, ...], sha256: str, weights: bytes | None, ready: bool
) -> None:
    put(places[0], weights=weights, sha256=sha256)
    assert cards.lookup("good").ready is ready


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    card = Card(
        **GOOD,
        training={"steps": 3, "rate": 1.5e-3, "views": ["a", "b"], "ema": True},
        scores={"hanji": {"pu_psnr": 26.5}},
        sample=SAMPLE,
        published={"FHDR-iter-2.ckpt": "b" * 64},
        sources=("https://example.org/a", "http://example.org/b"),
        howto='Line "one".\nLine two: \\ and ü.',
        folder=tmp_path / "new",
    )
    path = cards.write_card(card)
    assert path == tmp_path / "new" / "good.toml"
    assert cards.read_card(path) == card
    assert [entry.name for entry in path.parent.iterdir()] == ["good.toml"]


def test_empty_fields_are_left_out_of_the_file(tmp_path: Path) -> None:
    path = cards.write_card(replace(Card(**GOOD, folder=tmp_path), build={}))
    assert set(tomllib.loads(path.read_text(encoding="utf-8"))) == set(GOOD)


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_a_missing_field_is_named(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "good.toml"
    path.write_text(tomli_w.dumps({key: value for key, value in GOOD.items() if key != missing}), encoding="utf-8")
    with pytest.raises(WeightsError, match=f"good.toml lacks the field '{missing}'"):
        cards.read_card(path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"net": 3}, "'net' that is not a string"),
        ({"build": "iterations=2"}, "'build' that is not a table"),
        ({"sources": "https://example.org"}, "'sources' that is not a list"),
        ({"name": "other"}, "wrong 'name'"),
        ({"net": "../evil"}, "wrong 'net'"),
        ({"task": "paint"}, "wrong 'task'"),
        ({"file": "../good.safetensors"}, "wrong 'file'"),
        ({"file": "/tmp/good.safetensors"}, "wrong 'file'"),
        ({"file": "other.safetensors"}, "wrong 'file'"),
        ({"file": "good.pt"}, "wrong 'file'"),
        ({"sha256": "A" * 64}, "wrong 'sha256'"),
        ({"sha256": "abc"}, "wrong 'sha256'"),
        ({"sources": ["file:///etc/passwd"]}, "wrong 'sources'"),
        ({"sources": [1]}, "wrong 'sources'"),
        ({"published": {"x": "abc"}}, "wrong 'published'"),
        ({"sample": {"mean": [1.0, 2.0, 3.0]}}, "wrong 'sample'"),
        ({"sample": SAMPLE | {"tolerance": "much"}}, "wrong 'sample'"),
        ({"sample": SAMPLE | {"values": 3}}, "wrong 'sample'"),
        ({"sample": SAMPLE | {"values": [[1.0, 2.0]]}}, "wrong 'sample'"),
        ({"sample": SAMPLE | {"mean": ["a", "b", "c"]}}, "wrong 'sample'"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "good.toml"
    path.write_text(tomli_w.dumps(GOOD | changes), encoding="utf-8")
    with pytest.raises(WeightsError, match=complaint) as caught:
        cards.read_card(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"name = 1\nname = 2"])
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "good.toml"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read"):
        cards.read_card(path)


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a\\b", "a..b", "a b", "é", "-x", "x" * 65, "a\n"])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a model"):
        cards.check_name(name)


@pytest.mark.parametrize("name", ["lumen", "fhdr-khan2019-1", "A_1.b", "7"])
def test_plain_names_are_fine(name: str) -> None:
    cards.check_name(name)


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, example B.1
    assert cards.digest(tmp_path / "abc") == known


@pytest.mark.parametrize("depth", [0, 1])
def test_own_models_can_be_removed(places: tuple[Path, ...], depth: int) -> None:
    put(places[depth], weights=b"x")
    put(places[depth], "other", weights=b"y")
    assert cards.remove("good").name == "good"
    assert sorted(entry.name for entry in places[depth].iterdir()) == ["other.safetensors", "other.toml"]


def test_shipped_models_stay(places: tuple[Path, ...]) -> None:
    path = put(places[2], weights=b"x")
    with pytest.raises(UsageError, match="good comes with hdrcli"):
        cards.remove("good")
    assert path.is_file()
    assert path.with_suffix(".safetensors").is_file()


def shipped() -> list[Path]:
    return sorted(cards.shipped_folder().glob("*.toml"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_every_shipped_card_is_sound(path: Path) -> None:
    card = cards.read_card(path)
    assert card.licence
    assert card.origin
    assert card.ready or f"hdr models import {card.net} " in card.howto
    assert card.ready or f"--name {card.name}" in card.howto
    assert len(card.published) == 1 or not card.sources
    if card.ready:
        assert cards.digest(card.weights) == card.sha256
        assert card.sample


def test_no_weights_lie_in_the_shipped_folder_without_a_card() -> None:
    weights = {path.stem for path in cards.shipped_folder().glob("*.safetensors")}
    assert weights <= {path.stem for path in shipped()}


def test_cards_need_no_heavy_library() -> None:
    code = "import sys, hdrcli.cards as c; c.cards(); print({'torch', 'cv2', 'rawpy', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
