"""Weights: saved, loaded, verified, imported and pulled; and everything that is refused on the way."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from webserver import serving

from hdrcli import cards, nets, sample, zoo
from hdrcli.cards import Card
from hdrcli.errors import HdrError, ReadError, UsageError, WeightsError
from hdrcli.network import Context, NetSpec, Network, StateDict
from hdrcli.tiling import Tiling

SHARED = Path(__file__).resolve().parents[2] / "shared"


class Toy(Network):
    """A small network with a kernel, vectors and an integer buffer, whose sizes must divide by 64."""

    def __init__(self, channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.tiling = Tiling(multiple_of=64, halo=1, scale=1 if channels == 3 else 2)
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.leave = nn.Conv2d(width, 3 * self.tiling.scale**2, 1)
        self.register_buffer("table", torch.linspace(0, 1, 6).view(2, 3))
        self.shuffle = nn.PixelShuffle(self.tiling.scale)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        out: Tensor = self.shuffle(self.leave(torch.relu(self.norm(self.enter(tile)))))
        return out


def import_first(files: Any, settings: Any) -> StateDict:
    raise WeightsError("not the first format")


def import_toy(files: Any, settings: Any) -> StateDict:
    """A safetensors file with `x.` before each name; the setting `emor` is taken but not used."""
    try:
        found = safetensors.torch.load_file(files[0])
    except safetensors.SafetensorError as error:
        raise WeightsError("not the second format") from error
    return {key.removeprefix("x."): value for key, value in found.items()}


SPECS = {
    "toy": NetSpec(
        paper="", task="expand", gives="linear", build=Toy, importers={"one": import_first, "two": import_toy}
    ),
    "toyraw": NetSpec(paper="", task="develop", gives="srgb", build=lambda: Toy(channels=4)),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with models; `toy` and `toyraw` are the only networks beside the real ones."""
    real = nets.spec
    monkeypatch.setattr(nets, "spec", lambda name: SPECS.get(name) or real(name))
    monkeypatch.setattr(cards, "folders", lambda: (tmp_path / "models",))
    monkeypatch.setattr(zoo, "own_folders", lambda: (tmp_path / "models",))
    return tmp_path / "models"


def weights(**build: Any) -> StateDict:
    torch.manual_seed(7)
    network = Toy(**build)
    nn.init.uniform_(network.norm.running_mean)  # type: ignore[arg-type]
    return network.state_dict()


def save(folder: Path, name: str = "toy-a", **changes: Any) -> Card:
    facts: dict[str, Any] = {
        "net": "toy",
        "state": weights(),
        "build": {},
        "licence": "MIT",
        "origin": "made up",
        "training": {"steps": 10},
        "scores": {"hanji": {"pu_psnr": 20.0}},
    }
    return zoo.save(name=name, folder=folder, **(facts | changes))


def rewrite(card: Card, change: Callable[[StateDict], StateDict]) -> None:
    """Changes the weights of a card and makes the card agree with the new file."""
    state = safetensors.torch.load_file(card.weights)
    safetensors.torch.save_file(change(state), card.weights)
    cards.write_card(replace(card, sha256=cards.digest(card.weights)))


def test_what_is_saved_is_loaded(folder: Path) -> None:
    card = save(folder)
    assert cards.find("toy-a") == card
    model = zoo.load("toy-a")
    assert model.card == card
    assert model.spec is SPECS["toy"]
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    state = weights()
    for key, value in model.network.state_dict().items():
        assert value.dtype == state[key].dtype
        torch.testing.assert_close(value, state[key], rtol=2**-11, atol=1e-7)


def test_kernels_are_stored_in_half_and_vectors_in_full_precision(folder: Path) -> None:
    stored = safetensors.torch.load_file(save(folder).weights)
    assert {key: value.dtype for key, value in stored.items() if value.dtype == torch.float16} == {
        "enter.weight": torch.float16,
        "leave.weight": torch.float16,
    }
    assert stored["enter.bias"].dtype == stored["norm.running_var"].dtype == torch.float32
    assert stored["norm.num_batches_tracked"].dtype == torch.int64


def test_build_arguments_reach_the_network(folder: Path) -> None:
    save(folder, build={"width": 6}, state=weights(width=6))
    network = zoo.load("toy-a").network
    assert isinstance(network, Toy)
    assert network.enter.out_channels == 6


def test_saving_leaves_two_files(folder: Path) -> None:
    save(folder)
    save(folder)
    assert sorted(entry.name for entry in folder.iterdir()) == ["toy-a.safetensors", "toy-a.toml"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "leave.bias"}, "leave.bias is missing"),
        (lambda state: state | {"extra": torch.zeros(2)}, "extra is not known"),
        (lambda state: state | {"leave.bias": torch.zeros(4)}, r"leave.bias has the shape \(4,\) instead of \(3,\)"),
        (lambda state: state | {"leave.bias": torch.zeros(3).double()}, "leave.bias is torch.float64 instead of"),
        (lambda state: state | {"norm.num_batches_tracked": torch.tensor(1.0)}, "num_batches_tracked is torch.float32"),
        (lambda state: state | {"leave.bias": torch.tensor([0.0, torch.nan, 0.0])}, "leave.bias holds numbers that"),
        (
            lambda state: {"x." + k: v for k, v in state.items()},
            "; enter.weight is missing; enter.bias is missing and 17 more",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_when_saved_and_when_loaded(
    folder: Path, change: Callable[[StateDict], StateDict], complaint: str
) -> None:
    with pytest.raises(WeightsError, match=complaint):
        save(folder, state=change(weights()))
    assert not folder.exists()
    rewrite(save(folder), change)
    with pytest.raises(WeightsError, match=complaint):
        zoo.load("toy-a")


def test_kernels_too_large_for_half_precision_stay_as_they_are(folder: Path) -> None:
    state = weights()
    state["enter.weight"] *= 1e6
    stored = safetensors.torch.load_file(save(folder, state=state).weights)
    torch.testing.assert_close(stored["enter.weight"], state["enter.weight"], rtol=0, atol=0)


def test_tables_are_stored_in_full_precision(folder: Path) -> None:
    stored = safetensors.torch.load_file(save(folder).weights)
    torch.testing.assert_close(stored["table"], weights()["table"], rtol=0, atol=0)


def test_weights_that_give_no_finite_numbers_are_refused(folder: Path) -> None:
    state = weights() | {"norm.running_var": -torch.ones(4)}
    with pytest.raises(WeightsError, match="give no finite numbers"):
        save(folder, state=state)
    assert not folder.exists()


def test_a_changed_file_is_not_loaded(folder: Path) -> None:
    card = save(folder)
    data = bytearray(card.weights.read_bytes())
    data[-1] ^= 1
    card.weights.write_bytes(data)
    with pytest.raises(WeightsError, match="is not the file that its card names: SHA-256") as caught:
        zoo.load("toy-a")
    assert caught.value.hint
    assert "SHA-256" in zoo.verify(card).problem


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, (10**12).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{]", b"PK\3\4 a pickle"],
    ids=["empty", "header of 16 EiB", "header beyond the end", "no JSON", "another format"],
)
def test_a_damaged_file_is_refused_even_if_its_hash_fits(folder: Path, data: bytes) -> None:
    card = save(folder)
    card.weights.write_bytes(data)
    cards.write_card(replace(card, sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(WeightsError, match="is not a whole safetensors file"):
        zoo.load("toy-a")


def test_a_truncated_file_is_refused(folder: Path) -> None:
    card = save(folder)
    data = card.weights.read_bytes()[:-10]
    card.weights.write_bytes(data)
    cards.write_card(replace(card, sha256=hashlib.sha256(data).hexdigest()))
    with pytest.raises(WeightsError, match="is not a whole safetensors file"):
        zoo.load("toy-a")


@pytest.mark.parametrize(
    ("build", "complaint"),
    [({"colour": "red"}, "no setting 'colour'"), ({"width": 1.5}, "of the type int"), ({"width": -1}, "from 1")],
)
def test_a_card_that_cannot_build_its_network_is_refused(folder: Path, build: dict[str, Any], complaint: str) -> None:
    cards.write_card(replace(save(folder), build=build))
    with pytest.raises(WeightsError, match=f"the card toy-a cannot be right: the network toy has .*{complaint}"):
        zoo.load("toy-a")


def test_a_card_for_the_wrong_task_is_refused(folder: Path) -> None:
    cards.write_card(replace(save(folder), task="develop"))
    with pytest.raises(WeightsError, match="says develop, but the network toy can only expand"):
        zoo.load("toy-a")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".x"])
def test_a_bad_name_is_not_saved(folder: Path, name: str) -> None:
    with pytest.raises(UsageError):
        save(folder, name)
    assert not folder.exists()


@pytest.mark.parametrize(("net", "build"), [("toy", {}), ("toyraw", {"channels": 4})])
def test_weights_verify(folder: Path, net: str, build: dict[str, int]) -> None:
    card = save(folder, net=net, state=weights(**build))
    assert len(card.sample["values"]) == 8
    result = zoo.verify(cards.find("toy-a"))
    assert result.ok
    assert result.deviation is not None
    assert result.deviation < 0.01


@pytest.mark.parametrize("net", nets.names())
def test_every_network_is_saved_loaded_and_verified(folder: Path, net: str) -> None:
    build = dict(nets.spec(net).tiny)
    torch.manual_seed(5)
    network = nets.spec(net).build(**build)
    for value in (*network.parameters(), *network.buffers()):
        value.data += 0.01 if value.is_floating_point() else 0  # nothing stays zero
    card = save(folder, net=net, state=network.state_dict(), build=build)
    assert card.task == nets.spec(net).task
    assert zoo.verify(cards.find("toy-a")).ok


def test_another_network_behind_the_same_hash_does_not_verify(folder: Path) -> None:
    card = save(folder)
    values = [[1.01 * number + 0.02 for number in row] for row in card.sample["values"]]
    result = zoo.verify(replace(card, sample=card.sample | {"values": values}))
    assert not result.ok
    assert result.deviation is not None
    assert result.deviation > 1
    assert "times what is allowed" in result.problem


def test_a_sample_can_be_left_out(folder: Path) -> None:
    card = save(folder, sample=False)
    assert card.sample == {}
    assert zoo.verify(card) == zoo.Verification(name="toy-a")


def test_a_card_of_an_unknown_network_does_not_verify(folder: Path) -> None:
    card = replace(save(folder), net="nonesuch")
    assert zoo.verify(card).problem == "there is no network named 'nonesuch'"


def test_missing_weights_do_not_verify(folder: Path) -> None:
    card = save(folder)
    card.weights.unlink()
    assert zoo.verify(card).problem == "the weights of toy-a are not on this machine"


def test_the_test_picture_is_what_it_says() -> None:
    picture = sample.picture()
    assert picture.shape == (96, 128, 3)
    assert picture.min() >= 0
    assert picture.max() == 1
    saturated = (picture == 1).all(axis=2).mean()
    assert 0.05 < saturated < 0.15
    assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == "66e017dad2d6acf3"


def test_deviation_is_in_parts_of_the_tolerance() -> None:
    then = {"tolerance": 0.01, "mean": [0.0, 1.0, 3.0], "values": [[2.0, 0.0, 0.0]]}  # their mean size is 1
    assert sample.deviation(then, then) == 0
    assert sample.deviation(then | {"mean": [0.01, 1.0, 3.0]}, then) == pytest.approx(1, rel=1e-6)
    assert sample.deviation(then | {"mean": [0.0, 1.0, 3.08]}, then) == pytest.approx(2, rel=1e-6)
    assert sample.deviation(then | {"mean": [0.0, 1.0, float("nan")]}, then) == float("inf")
    assert sample.deviation(then | {"values": [[0.0, 0.0, 0.0]] * 2}, then) == float("inf")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_deviation_does_not_depend_on_the_scale_of_the_output(scale: float) -> None:
    then = {"tolerance": 0.01, "mean": [0.0, scale, 3 * scale], "values": [[2 * scale, 0.0, 0.0]]}
    now = then | {"mean": [0.02 * scale, scale, 3 * scale]}
    assert sample.deviation(now, then) == pytest.approx(2, rel=1e-3)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file in the format that `import_toy` reads."""
    path = tmp_path / "toy_params.st"
    safetensors.torch.save_file({"x." + key: value for key, value in weights().items()}, path)
    return path


def wait_for(folder: Path, **changes: Any) -> Card:
    """A card that waits for its weights."""
    card = Card(
        name="toy-b",
        net="toy",
        task="expand",
        file="toy-b.safetensors",
        sha256="",
        build={"width": 4},
        licence="BSD-3-Clause",
        origin="its authors",
        howto="Ask them.",
        folder=folder,
    )
    card = replace(card, **changes)
    cards.write_card(card)
    return card


def test_published_weights_are_imported_in_full_precision(folder: Path, published: Path) -> None:
    curves = published.with_name("curves.txt")
    curves.write_text("g0 =")
    settings = {"width": 4, "emor": curves}
    card = zoo.import_model("toy", [published], name="toy-b", settings=settings, folder=folder)
    assert card.build == {"width": 4}
    assert card.licence == "not stated"
    assert card.origin == "imported from toy_params.st"
    assert card.published == {"toy_params.st": cards.digest(published), "curves.txt": cards.digest(curves)}
    for key, value in zoo.load("toy-b").network.state_dict().items():
        torch.testing.assert_close(value, weights()[key], rtol=0, atol=0)
    assert zoo.verify(card).ok


def test_a_waiting_card_tells_what_the_user_does_not(folder: Path, published: Path) -> None:
    wait_for(folder, published={"toy_params.st": ""})
    card = zoo.import_model("toy", [published], name="toy-b", settings={}, folder=folder)
    assert (card.licence, card.origin, card.build) == ("BSD-3-Clause", "its authors", {"width": 4})
    assert card.published == {"toy_params.st": cards.digest(published)}
    assert cards.find("toy-b") == card


def test_a_waiting_card_accepts_only_the_file_that_it_knows(folder: Path, published: Path) -> None:
    wait_for(folder, published={"toy_params.st": "0" * 64})
    with pytest.raises(WeightsError, match="is not the file that the authors of toy-b published"):
        zoo.import_model("toy", [published], name="toy-b", settings={}, folder=folder)
    wait_for(folder, published={"toy_params.st": cards.digest(published)})
    renamed = published.rename(published.with_name("download (1)"))
    assert zoo.import_model("toy", [renamed], name="toy-b", settings={}, folder=folder).ready


def test_a_model_that_exists_is_not_replaced(folder: Path, published: Path) -> None:
    before = save(folder, "toy-b").weights.read_bytes()
    with pytest.raises(UsageError, match="there is already a model named toy-b"):
        zoo.import_model("toy", [published], name="toy-b", settings={}, folder=folder)
    assert (folder / "toy-b.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "kind", "complaint"),
    [
        ({"name": "../toy"}, UsageError, "cannot be the name"),
        ({"settings": {"colour": "red"}}, UsageError, "the network toy has no setting 'colour'"),
        ({"settings": {"width": "wide"}}, UsageError, "has a setting 'width' that is of the type int, not 'wide'"),
        ({"settings": {"width": True}}, UsageError, "has a setting 'width' that is of the type int, not True"),
        ({"settings": {"width": 0}}, UsageError, "has a setting 'width' that counts from 1, not 0"),
        ({"files": [Path("nowhere.st")]}, ReadError, "there is no file nowhere.st"),
        ({"files": [Path(__file__)]}, WeightsError, "one: not the first format; two: not the second format"),
        ({"net": "toyraw"}, WeightsError, "it has no published format"),
        ({"net": "nonesuch"}, UsageError, "there is no network named 'nonesuch'"),
        ({"settings": {"width": 5}}, WeightsError, "do not fit their network: enter.weight has the shape"),
    ],
)
def test_what_cannot_be_imported_is_refused(
    folder: Path, published: Path, changes: dict[str, Any], kind: type[HdrError], complaint: str
) -> None:
    facts: dict[str, Any] = {"net": "toy", "files": [published], "name": "toy-b", "settings": {}} | changes
    with pytest.raises(kind, match=complaint):
        zoo.import_model(facts.pop("net"), facts.pop("files"), folder=folder, **facts)
    assert not folder.exists()


def test_a_waiting_card_of_another_network_is_not_filled(folder: Path, published: Path) -> None:
    wait_for(folder, net="toyraw", task="develop", build={})
    with pytest.raises(UsageError, match="toy-b belongs to the network toyraw, not to toy"):
        zoo.import_model("toy", [published], name="toy-b", settings={}, folder=folder)


def test_a_folder_and_a_prefix_stand_for_their_files(tmp_path: Path) -> None:
    inside = tmp_path / "ckpt_a"
    inside.mkdir()
    for suffix in ("index", "data-00000-of-00001"):
        (inside / f"model.ckpt.{suffix}").write_bytes(suffix.encode())
    expected = {f"ckpt_a/{path.name}": cards.digest(path) for path in inside.iterdir()}
    assert zoo._hashes([inside]) == zoo._hashes([inside / "model.ckpt"]) == expected


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, published: Path) -> Iterator[list[tuple[Any, ...]]]:
    """Replaces the network: every download is a copy of `published`. Gives what was asked for."""
    asked: list[tuple[Any, ...]] = []

    def fetch(sources: Any, target: Path, *, sha256: str, progress: Any) -> str:
        asked.append((*sources, target.name, sha256))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(published.read_bytes())
        return cards.digest(target)

    monkeypatch.setattr(zoo, "fetch", fetch)
    yield asked


def test_pulling_an_authors_file_imports_it_and_records_its_hash(
    folder: Path, published: Path, fetched: list[tuple[Any, ...]]
) -> None:
    wait_for(folder, published={"toy_params.st": ""}, sources=("https://a.example/toy_params.st",))
    card = zoo.pull("toy-b")
    assert fetched == [("https://a.example/toy_params.st", "toy_params.st", "")]
    assert card.published == {"toy_params.st": cards.digest(published)}
    assert zoo.verify(cards.find("toy-b")).ok
    assert sorted(entry.name for entry in folder.iterdir()) == ["toy-b.safetensors", "toy-b.toml"]


def test_a_pulled_file_that_cannot_be_imported_does_not_stay(
    folder: Path, published: Path, fetched: list[tuple[Any, ...]]
) -> None:
    published.write_bytes(b"something else")
    wait_for(folder, published={"toy_params.st": ""}, sources=("https://a.example/toy_params.st",))
    with pytest.raises(WeightsError, match="cannot import these files"):
        zoo.pull("toy-b")
    assert [entry.name for entry in folder.iterdir()] == ["toy-b.toml"]


def test_pulling_what_is_there_does_nothing_unless_it_is_damaged(
    folder: Path, published: Path, fetched: list[tuple[Any, ...]]
) -> None:
    wait_for(folder, published={"toy_params.st": ""}, sources=("https://a.example/toy_params.st",))
    card = zoo.pull("toy-b")
    assert zoo.pull("toy-b") == card
    assert len(fetched) == 1
    card.weights.write_bytes(b"damaged")
    assert zoo.pull("toy-b") == card
    assert fetched[1][2] == cards.digest(published)
    assert zoo.load("toy-b").card == card


def test_pulling_weights_themselves_puts_them_into_the_users_folder(
    tmp_path: Path, folder: Path, published: Path, fetched: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(cards, "folders", lambda: (folder, shipped))
    known = cards.digest(published)
    wait_for(shipped, sha256=known, sources=("https://a.example/toy-b.safetensors",))
    card = zoo.pull("toy-b")
    assert fetched == [("https://a.example/toy-b.safetensors", "toy-b.safetensors", known)]
    assert card.folder == folder
    assert cards.find("toy-b") == card
    assert [entry.name for entry in shipped.iterdir()] == ["toy-b.toml"]


def test_pulling_from_a_real_server(tmp_path: Path, folder: Path, published: Path, monkeypatch: Any) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(published.parent)))) as base:
        wait_for(folder, sources=(f"{base}/gone", f"{base}/{published.name}"), published={"toy_params.st": ""})
        seen: list[int] = []
        card = zoo.pull("toy-b", progress=lambda done, total: seen.append(done))
    assert seen[-1] == published.stat().st_size
    assert card.published == {"toy_params.st": cards.digest(published)}
    assert zoo.verify(card).ok


def test_a_card_without_an_address_says_what_to_do(folder: Path) -> None:
    wait_for(folder)
    with pytest.raises(WeightsError, match="no address to pull toy-b from") as caught:
        zoo.pull("toy-b")
    assert caught.value.hint == "Ask them."


def test_a_failed_pull_says_what_to_do_by_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise WeightsError("no mirror gave x")

    monkeypatch.setattr(zoo, "fetch", fail)
    wait_for(folder, sources=("https://a.example/x",), published={"x": ""})
    with pytest.raises(WeightsError, match="no mirror gave x") as caught:
        zoo.pull("toy-b")
    assert caught.value.hint == "Ask them."


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "iterations"), [("FHDR-iter-1.ckpt", 1), ("FHDR-iter-2.ckpt", 2), ("FHDR_200epochs_mixed.ckpt", 2)]
)
def test_the_published_fhdr_weights_are_imported(folder: Path, file: str, iterations: int) -> None:
    path = SHARED / "weights" / "fhdr" / file
    if not path.is_file():
        pytest.skip("../shared/weights is not beside this checkout")
    card = zoo.import_model("fhdr", [path], name="x", settings={"iterations": iterations}, folder=folder)
    assert zoo.load("x").spec is nets.spec("fhdr")
    assert zoo.verify(card).ok


@pytest.mark.shared_data
@pytest.mark.parametrize("iterations", [1, 2])
def test_the_shipped_cards_know_the_published_fhdr_files(
    folder: Path, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = SHARED / "weights" / "fhdr" / f"FHDR-iter-{iterations}.ckpt"
    if not path.is_file():
        pytest.skip("../shared/weights is not beside this checkout")
    monkeypatch.setattr(cards, "folders", lambda: (folder, cards.shipped_folder()))
    name = f"fhdr-khan2019-{iterations}"
    card = zoo.import_model("fhdr", [path], name=name, settings={}, folder=folder)
    assert card.build == {"iterations": iterations}
    assert card.licence.startswith("BSD-3-Clause")
    assert cards.find(name).folder == folder
