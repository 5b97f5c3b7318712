"""FHDR against numbers of the authors' own code, its weight files, and what it claims about itself."""

import os
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from standins import numbers
from tf_rule import DATA, published_arrays
from torch import Tensor

from hdrcli.errors import WeightsError
from hdrcli.nets.fhdr import FHDR, SPEC
from hdrcli.nets.hdrcnn import inverse_camera_curve

ATOL = 1e-5
IMPORT = SPEC.importers["torch-state-dict"]


@cache
def _expected() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in numbers(DATA / "fhdr.npz").items()}


@cache
def _published() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in published_arrays("fhdr").items()}


def _save(folder: Path, content: object, **options: Any) -> Path:
    path = folder / "published.ckpt"
    torch.save(content, path, **options)
    return path


def _network(path: Path, **build: int) -> FHDR:
    network = FHDR(**build)
    network.load_state_dict(IMPORT([path], build))
    return network


@pytest.fixture(scope="module")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the authors save from one GPU."""
    return _save(tmp_path_factory.mktemp("fhdr"), _published())


@pytest.mark.parity
@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize("case", ["a", "b"])
@torch.inference_mode()
def test_equals_the_authors_code(case: str, iterations: int, published_file: Path) -> None:
    """Theirs gives BGR in [-1, 1] for RGB in [-1, 1]; the first outputs do not depend on how many follow."""
    network = _network(published_file, iterations=iterations)
    image = (_expected()[f"{case}/input"] + 1) / 2
    iterates = network.iterates(image)
    assert len(iterates) == iterations
    for index, iterate in enumerate(iterates):
        worst = float((iterate.flip(1) - _expected()[f"{case}/out{index}"]).abs().max())
        print(f"case {case}, iteration {index}: differs by {worst:.1e}")
        assert worst <= ATOL
    assert torch.equal(network(image, {}), (iterates[-1] + 1) / 2)


@torch.inference_mode()
def test_a_second_picture_starts_afresh(published_file: Path) -> None:
    """The authors' code fails here by up to 1.4: it remembers the picture before."""
    network = _network(published_file, iterations=2)
    first, second = ((_expected()[f"{case}/input"] + 1) / 2 for case in "ab")
    before = network(first, {})
    network(second, {})
    assert torch.equal(network(first, {}), before)


@pytest.mark.parametrize("iterations", [1, 2, 3])
@torch.inference_mode()
def test_the_halo_is_exact(iterations: int) -> None:
    """Whatever a value that is not a number reaches, an output pixel depends on it."""
    network = FHDR(iterations=iterations, width=4)
    middle, size = network.tiling.halo + 3, 2 * network.tiling.halo + 6
    assert network.tiling.halo == 25 * iterations + 4
    image = torch.rand(1, 3, 8, size)
    image[..., middle:] = torch.nan
    reached = network(image, {}).isnan().any(dim=(0, 1, 2)).nonzero()
    assert middle - int(reached.min()) == network.tiling.halo


def test_no_gradient_flows_through_the_memory() -> None:
    """As in the authors' code: the second output teaches as if what the first iteration left were a constant."""
    network = FHDR(iterations=2, width=4).double()
    image = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    weight = network.feedback.fuse.weight
    (found,) = torch.autograd.grad(network.iterates(image)[1].sum(), weight)

    shallow = torch.relu(network.extract1(2 * image - 1))
    features = torch.relu(network.extract2(shallow))
    with torch.no_grad():
        _, memory = network.feedback(features, None)
    refined, _ = network.feedback(features, memory)
    output = torch.tanh(network.reconstruct2(torch.relu(network.reconstruct1(refined + shallow))))
    (expected,) = torch.autograd.grad(output.sum(), weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "DataParallel"])
def test_import(tmp_path: Path, legacy: bool, prefix: str) -> None:
    content = {prefix + name: value for name, value in _published().items()}
    path = _save(tmp_path, content, _use_new_zipfile_serialization=not legacy)
    state = IMPORT([path], {"iterations": 2})
    assert state.keys() == FHDR().state_dict().keys()
    assert torch.equal(state["extract1.weight"], _published()["feb1.weight"])
    assert torch.equal(state["reconstruct2.weight"], _published()["hrb2.weight"].flip(0)), "BGR must become RGB"
    assert torch.equal(state["reconstruct2.bias"], _published()["hrb2.bias"].flip(0)), "BGR must become RGB"


def _without(name: str) -> Mapping[str, Tensor]:
    return {key: value for key, value in _published().items() if key != name}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_without("feb2.bias"), "feb2.bias is missing"),
        ({**_published(), "extra": torch.zeros(1)}, "extra is not known"),
        ({**_published(), "hrb1.bias": torch.zeros(32)}, "hrb1.bias is 32, not 64"),
        ({**_published(), "feb1.bias": torch.full((64,), torch.nan)}, "feb1.bias holds numbers that are not finite"),
        ({"conv.weight": torch.zeros(1)}, "feb1.weight is missing; feb1.bias is missing.* and 31 more"),
        ([torch.zeros(1)], "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: object, says: str) -> None:
    with pytest.raises(WeightsError, match=says) as caught:
        IMPORT([_save(tmp_path, content)], {})
    assert caught.value.hint


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(os.environ["PYTEST_HARM"]),)


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    harm = tmp_path / "harm"
    monkeypatch.setenv("PYTEST_HARM", str(harm))
    content = {**_published(), "evil": _Harmful()}
    if container == "pickle":
        path = tmp_path / "published.ckpt"
        path.write_bytes(pickle.dumps(content))
    else:
        path = _save(tmp_path, content, _use_new_zipfile_serialization=container == "zip")
    harm.unlink(missing_ok=True)
    with pytest.raises(WeightsError, match="safe to read"):
        IMPORT([path], {})
    assert not harm.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_damage_is_an_error_of_ours(tmp_path: Path, legacy: bool) -> None:
    """Cut or overwritten anywhere, a file is refused, or is whole for torch and then judged by its arrays."""
    path = _save(tmp_path, {"feb1.weight": torch.rand(4)}, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    generator = np.random.default_rng(5)
    for trial in range(300):
        spoilt = bytearray(whole)
        place = int(generator.integers(len(whole)))
        if trial % 2:
            del spoilt[place:]
        else:
            spoilt[place : place + 3] = generator.bytes(3)
        path.write_bytes(spoilt)
        with pytest.raises(WeightsError):
            IMPORT([path], {})


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        IMPORT([tmp_path / "nothing.ckpt"], {})
    with pytest.raises(WeightsError, match="one file, not in 2"):
        IMPORT([tmp_path, tmp_path], {})


@torch.inference_mode()
def test_with_a_skip_the_mean_camera_curve_is_carried_past_the_network() -> None:
    """A network that adds nothing gives the light of that curve, from the first code values to those that clip."""
    network = FHDR(width=4, peak=16.0, skip=True)
    for parameter in network.reconstruct2.parameters():
        torch.nn.init.zeros_(parameter)
    codes = torch.linspace(1 / 255, 1, 255)[None, None, None].repeat(1, 3, 2, 1)
    stops = torch.log2(network(codes, {}) / inverse_camera_curve(codes)).abs()
    assert float(stops.max()) < 1e-2, f"{float(stops.max()):.1e} stops at code {int(stops[0, 0, 0].argmax()) + 1}"


def test_no_iterations() -> None:
    with pytest.raises(WeightsError, match="0 iterations"):
        FHDR(iterations=0)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "iterations"), [("FHDR-iter-1.ckpt", 1), ("FHDR-iter-2.ckpt", 2), ("FHDR_200epochs_mixed.ckpt", 2)]
)
@torch.inference_mode()
def test_released_weights_give_rgb(shared_data: Path, file: str, iterations: int) -> None:
    """Legacy files with CUDA storages; a red, a green and a blue picture come out in their colours."""
    path = shared_data.parent / "weights" / "fhdr" / file
    if not path.is_file():
        pytest.skip("../shared/weights is not beside this checkout")
    network = _network(path, iterations=iterations)
    colours = 0.25 + 0.4 * torch.eye(3)
    pictures = colours[:, :, None, None].expand(3, 3, 24, 24)
    found = network(pictures, {}).mean(dim=(2, 3))
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
    assert found.argmax(dim=1).tolist() == [0, 1, 2], f"channels are mixed up: {found.tolist()}"
