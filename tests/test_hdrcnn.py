"""HDRCNN against the authors' own code, and the import of their weight files."""

import pickle
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from standins import numbers
from tf_rule import DATA, difference, planes, published_arrays, slim_arrays

from hdrcli.errors import UsageError, WeightsError
from hdrcli.nets import spec
from hdrcli.nets._tf_checkpoint import by_position, fit, read_npz
from hdrcli.nets.hdrcnn import LAYERS, Hdrcnn

CONTAINERS = ("py2_protocol2", "py3_protocol2", "py3_protocol3", "numpy2_protocol4")


@pytest.fixture(scope="module")
def fixture() -> dict[str, NDArray[np.float32]]:
    return numbers(DATA / "hdrcnn.npz")


@pytest.fixture(scope="module")
def network() -> Hdrcnn:
    network = Hdrcnn()
    arrays = list(published_arrays("hdrcnn").values())
    network.load_state_dict(fit(network, by_position(arrays, network, LAYERS, "the rule"), "the rule"))
    return network.eval()


@pytest.mark.parity
def test_size(network: Hdrcnn) -> None:
    arrays = [value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")]
    assert (len(arrays), sum(value.numel() for value in arrays)) == (80, 29_447_332)


@pytest.mark.parity
def test_inner_stages(network: Hdrcnn, fixture: dict[str, NDArray[np.float32]]) -> None:
    seen: dict[str, torch.Tensor] = {}
    autoencoder = network.autoencoder
    places = {"h6_relu": autoencoder.bottleneck, "h7": autoencoder.to_rgb, "y_log": autoencoder.last_fuse}
    places |= {f"h{level + 1}": up for level, up in enumerate(autoencoder.ups)}
    hooks = [
        place.register_forward_hook(
            lambda _, given, made, name=name: seen.update({name: made, f"into {name}": given[0]})
        )
        for name, place in places.items()
    ]
    with torch.inference_mode():
        network(planes(fixture["input"]), {})
    for hook in hooks:
        hook.remove()
    found = {
        "mid/encoder_h5_pool": seen["into h6_relu"],
        "mid/encoder_h6_relu": seen["h6_relu"],
        "mid/decoder_h1_leaky_relu": seen["h1"][:, ::4],
        "mid/decoder_h2_leaky_relu": seen["h2"][:, ::8],
        "mid/decoder_h7_leaky_relu": seen["h7"],
        "y_log": seen["y_log"],
    }
    assert set(found) == {name for name in fixture if name.startswith(("mid/", "y_log"))}
    for name, tensor in found.items():
        worst, size = difference(tensor, fixture[name]), float(np.abs(fixture[name]).max())
        print(f"hdrcnn {name} {worst:.2e} of {size:.3g}")
        assert worst <= 3e-5 if name == "y_log" else worst <= 1e-5 * size + 1e-5, f"{name}: off by {worst:.2e}"


@pytest.mark.parity
@pytest.mark.parametrize("gamma", [1.0, 1.2])
@pytest.mark.parametrize("scaling", [1.0, 1.25])
def test_output(network: Hdrcnn, fixture: dict[str, NDArray[np.float32]], gamma: float, scaling: float) -> None:
    image = (planes(fixture["input"]) * scaling).clamp(max=1) ** (1 / gamma)
    with torch.inference_mode():
        output = network.whole(image) ** gamma
    expected = planes(fixture[f"final/gamma{gamma}/scaling{scaling}"])
    worst = float((output - expected).abs().max())
    print(f"hdrcnn final gamma {gamma} scaling {scaling}: {worst:.2e} of {float(expected.max()):.3g}")
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_unclipped_pixels_are_the_square_of_the_input() -> None:
    image = torch.rand(1, 3, 64, 64) * 0.95
    with torch.inference_mode():
        output = Hdrcnn(width=4).eval().whole(image)
    torch.testing.assert_close(output, image.square())


def test_half_precision_leaves_the_last_layer_alone() -> None:
    network = Hdrcnn(width=4).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert network(torch.ones(1, 3, 32, 32), {}).dtype == torch.float32


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(container: str) -> None:
    expected = numbers(DATA / "hdrcnn_container_expected.npz")
    found = read_npz(DATA / f"hdrcnn_container_{container}.npz")
    assert len(found) == 4
    for i, array in enumerate(found):
        np.testing.assert_array_equal(array, expected[f"p{i}"])
        assert array.dtype == np.float32


def _save_list(path: Path, arrays: list[NDArray[np.float32]]) -> Path:
    content = np.empty(len(arrays), object)
    content[:] = arrays
    np.savez(path, params=content)
    return path


@pytest.mark.parametrize("old", [False, True], ids=["params", "param0"])
def test_import(tmp_path: Path, old: bool) -> None:
    arrays = list(slim_arrays("hdrcnn").values())
    path = tmp_path / "hdrcnn_params.npz"
    if old:
        np.savez(path, **{f"param{i}": array for i, array in enumerate(arrays)})
    else:
        _save_list(path, arrays)
    network = Hdrcnn(width=4)
    state = spec("hdrcnn").importers["tensorlayer-npz"]([path], {"width": 4})
    network.load_state_dict(state)
    np.testing.assert_array_equal(state["autoencoder.encoder.0.0.weight"], arrays[0].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(state["autoencoder.bottleneck.norm.bias"], arrays[28])
    np.testing.assert_array_equal(state["autoencoder.ups.0.norm.running_var"], arrays[37])
    np.testing.assert_array_equal(state["autoencoder.ups.2.conv.weight"], arrays[48].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(state["autoencoder.last_fuse.bias"], arrays[79])


def _refused(path: Path, build: dict[str, int] | None = None) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        spec("hdrcnn").importers["tensorlayer-npz"]([path], {"width": 4} if build is None else build)
    assert caught.value.hint
    return caught.value


def test_import_refuses_what_does_not_fit(tmp_path: Path) -> None:
    arrays = list(slim_arrays("hdrcnn").values())
    assert "79 arrays" in _refused(_save_list(tmp_path / "short.npz", arrays[:-1])).message
    swapped = [arrays[1], arrays[0], *arrays[2:]]
    message = _refused(_save_list(tmp_path / "swapped.npz", swapped)).message
    assert "encoder.0.0.weight" in message and "encoder.0.0.bias" in message
    wide = _refused(_save_list(tmp_path / "slim.npz", arrays), build={}).message
    assert "(4, 3, 3, 3) instead of (64, 3, 3, 3)" in wide and "more" in wide
    arrays[5] = np.full_like(arrays[5], np.nan)
    assert "not finite" in _refused(_save_list(tmp_path / "nan.npz", arrays)).message


def test_import_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    assert "cannot be read" in _refused(tmp_path / "missing.npz").message
    text = tmp_path / "text.npz"
    text.write_text("no zip")
    assert "not a TensorLayer weight file" in _refused(text).message
    whole = _save_list(tmp_path / "whole.npz", list(slim_arrays("hdrcnn").values())).read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "not a TensorLayer weight file" in _refused(cut).message
    other = tmp_path / "other.npz"
    np.savez(other, weights=np.zeros(3, np.float32))
    assert "not a TensorLayer weight file" in _refused(other).message


class _Spy:
    """A pickle of this runs `call` when it is read without care."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize(
    "call", [(exec, "raise SystemExit"), (np.load, "x"), (np.frombuffer, b"x"), (bytearray, 9), (getattr, "", "join")]
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_import_runs_nothing(tmp_path: Path, call: tuple[object, ...], protocol: int) -> None:
    content = np.empty(1, object)
    content[0] = _Spy(*call)
    member = BytesIO()
    np.lib.format.write_array(member, np.empty(1, object))
    header = member.getvalue()[: 10 + int.from_bytes(member.getvalue()[8:10], "little")]
    path = tmp_path / "malicious.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("params.npy", header + pickle.dumps(content, protocol=protocol))
    assert "wants to run" in _refused(path).message


def test_width_is_checked() -> None:
    with pytest.raises(UsageError):
        Hdrcnn(width=0)
