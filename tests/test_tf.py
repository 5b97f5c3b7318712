"""TensorFlow's operators against numbers from TensorFlow itself, and its checkpoints."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from standins import numbers
from tf_rule import DATA, difference, planes, published_arrays, slim_arrays, write_bundle
from torch import Tensor, nn

from hdrcli.errors import WeightsError
from hdrcli.nets._autoencoder import NORM_EPS
from hdrcli.nets._tf import double_bilinear, max_pool_same, same_pad, sobel_edges
from hdrcli.nets._tf_checkpoint import bundle_prefix, read_bundle, read_npz
from hdrcli.nets.singlehdr import LEAK, SLIM_NORM_EPS, apply_curve, increasing, soft_histogram

TOLERANCE = 1e-5
LINEARIZATION = ("crf_feature_net", "ae_invcrf_decode_net")
SIZES = ("6x8", "7x9")  # even and odd


@pytest.fixture(scope="module")
def ops() -> dict[str, NDArray[np.float32]]:
    return numbers(DATA / "tf_ops.npz")


def _same(found: Tensor, expected: NDArray[np.float32]) -> None:
    worst = difference(found, expected)
    assert worst <= TOLERANCE, f"off by {worst:.2e}"


@pytest.mark.parity
@pytest.mark.parametrize("size", SIZES)
class TestOperators:
    @pytest.mark.parametrize("kernel", [1, 3, 5, 7])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_same_convolution(self, ops: dict[str, NDArray[np.float32]], size: str, kernel: int, stride: int) -> None:
        weight = torch.from_numpy(ops[f"k{kernel}_{size}"].transpose(3, 2, 0, 1).copy())
        found = F.conv2d(same_pad(planes(ops[f"x_{size}"]), kernel, stride), weight, stride=stride)
        _same(found, ops[f"conv_same_k{kernel}_s{stride}_{size}"])

    @pytest.mark.parametrize("kernel", [2, 3])
    def test_max_pool(self, ops: dict[str, NDArray[np.float32]], size: str, kernel: int) -> None:
        _same(max_pool_same(planes(ops[f"x_{size}"]), kernel, 2), ops[f"maxpool_same_k{kernel}_s2_{size}"])

    def test_average_pool(self, ops: dict[str, NDArray[np.float32]], size: str) -> None:
        _same(F.avg_pool2d(planes(ops[f"x_{size}"]), 2), ops[f"avgpool_layers_default_k2_s2_{size}"])

    def test_bilinear(self, ops: dict[str, NDArray[np.float32]], size: str) -> None:
        _same(double_bilinear(planes(ops[f"x_{size}"])), ops[f"resize_bilinear_x2_{size}"])

    def test_nearest(self, ops: dict[str, NDArray[np.float32]], size: str) -> None:
        found = F.interpolate(planes(ops[f"x_{size}"]), scale_factor=2, mode="nearest")
        _same(found, ops[f"resize_nearest_x2_{size}"])

    def test_transposed_convolution(self, ops: dict[str, NDArray[np.float32]], size: str) -> None:
        weight = torch.from_numpy(ops[f"kt4_{size}"].transpose(3, 2, 0, 1).copy())
        found = F.conv_transpose2d(planes(ops[f"x_{size}"]), weight, stride=2, padding=1)
        _same(found, ops[f"conv2d_transpose_same_k4_s2_{size}"])

    def test_sobel(self, ops: dict[str, NDArray[np.float32]], size: str) -> None:
        _same(sobel_edges(planes(ops[f"x_{size}"])), ops[f"sobel_edges_flat6_{size}"])


@pytest.mark.parity
@pytest.mark.parametrize(("eps", "name"), [(NORM_EPS, "tensorlayer_eps1e-5"), (SLIM_NORM_EPS, "slim_eps1e-3")])
def test_batch_norm(ops: dict[str, NDArray[np.float32]], eps: float, name: str) -> None:
    norm = nn.BatchNorm2d(3, eps).eval()
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    norm.load_state_dict({ours: torch.from_numpy(ops[f"bn_{theirs}"]) for ours, theirs in parts.items()})
    with torch.inference_mode():
        _same(norm(planes(ops["x_6x8"])), ops[f"bn_{name}"])


@pytest.mark.parity
def test_curve_operators(ops: dict[str, NDArray[np.float32]]) -> None:
    found = increasing(torch.from_numpy(ops["increase_in"]))
    np.testing.assert_allclose(found.numpy(), ops["increase_out"], atol=TOLERANCE)
    curve = torch.from_numpy(ops["increase_out"])
    _same(apply_curve(planes(ops["apply_rf_x"]), curve), ops["apply_rf_out"])
    for bins in (4, 8, 16):
        _same(soft_histogram(planes(ops["hist_in"]), bins), ops[f"hist_{bins}"])
    _same(F.leaky_relu(planes(ops["leaky_relu_0.1_in"]), LEAK), ops["leaky_relu_0.1"])


def test_bilinear_follows_its_definition() -> None:
    found = double_bilinear(torch.tensor([[[[1.0, 3.0, 7.0]]]]))
    assert found.tolist() == [[[[1, 2, 3, 5, 7, 7], [1, 2, 3, 5, 7, 7]]]]


def test_index_written_by_tensorflow(tmp_path: Path) -> None:
    """The shard is filled with its own positions, so that every array tells where it was read."""
    prefix = tmp_path / "model.ckpt-1000"
    (tmp_path / "model.ckpt-1000.index").write_bytes((DATA / "tf_lin_train.index").read_bytes())
    positions = np.arange(14_439_820 // 4, dtype="<i4")
    positions.tofile(tmp_path / "model.ckpt-1000.data-00000-of-00001")
    found = read_bundle(prefix)
    seen = np.sort(np.concatenate([array.view("<i4").ravel() for array in found.values()]))
    np.testing.assert_array_equal(seen, positions)
    expected = {
        name: array.shape for name, array in slim_arrays("singlehdr", 1).items() if name.startswith(LINEARIZATION)
    }
    slots = {name: array.shape for name, array in found.items() if name not in expected}
    assert {name: found[name].shape for name in expected} == expected
    assert slots.pop("beta1_power") == slots.pop("beta2_power") == ()
    assert {name.rpartition("/")[2] for name in slots} == {"Adam", "Adam_1"}


@pytest.mark.shared_data
@pytest.mark.parity
@pytest.mark.parametrize(("name", "count"), [("ckpt_deq/model.ckpt", 38), ("ckpt_lin_train/model.ckpt-1000", 93)])
def test_checkpoint_written_by_tensorflow(shared_data: Path, name: str, count: int) -> None:
    found = read_bundle(shared_data.parent / "parity" / "tf_bundle" / name)
    expected = {name: array for name, array in published_arrays("singlehdr").items() if name in found}
    assert len(expected) == count
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_bundle_round_trip(tmp_path: Path) -> None:
    arrays = slim_arrays("singlehdr")
    arrays["half"] = np.arange(6, dtype=np.float16).reshape(2, 3)
    prefix = write_bundle(tmp_path / "model.ckpt", arrays | {"step": np.array(7)}, shards=2)
    found = read_bundle(prefix)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_any_part_names_a_checkpoint(tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "a" / "model.ckpt-9", {"x": np.zeros(2, np.float32)})
    parts = [prefix, prefix.parent, *prefix.parent.iterdir()]
    assert {bundle_prefix(part) for part in parts} == {prefix}
    assert bundle_prefix(tmp_path / "invemor.txt") is None
    write_bundle(tmp_path / "a" / "other.ckpt", {"x": np.zeros(2, np.float32)})
    with pytest.raises(WeightsError, match="holds 2 TensorFlow checkpoints"):
        bundle_prefix(prefix.parent)


@pytest.mark.parametrize("spoil", ["truncated", "compressed", "not a table", "no shard", "short shard", "empty shard"])
def test_damaged_bundles(tmp_path: Path, spoil: str) -> None:
    prefix = write_bundle(tmp_path / "model.ckpt", {"x": np.arange(50, dtype=np.float32)})
    index = prefix.with_name("model.ckpt.index")
    shard = prefix.with_name("model.ckpt.data-00000-of-00001")
    whole = index.read_bytes()
    if spoil == "truncated":
        index.write_bytes(whole[:-60] + whole[-48:])
    elif spoil == "compressed":
        index.write_bytes(whole[: -48 - 5] + b"\1" + whole[-48 - 4 :])
    elif spoil == "not a table":
        index.write_bytes(b"no")
    elif spoil == "no shard":
        shard.unlink()
    else:
        shard.write_bytes(b"" if spoil == "empty shard" else shard.read_bytes()[:-3])
    with pytest.raises(WeightsError) as caught:
        read_bundle(prefix)
    assert caught.value.hint and "model.ckpt" in caught.value.message


def _spoiled(whole: bytes, seed: int) -> bytes:
    """The bytes with one run of up to four replaced at random."""
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(whole)))
    return whole[:at] + rng.bytes(4)[: rng.integers(1, 5)] + whole[at + 4 :]


@pytest.mark.parametrize("container", ["py2_protocol2", "numpy2_protocol4"])
def test_spoiled_containers_are_refused_or_read(tmp_path: Path, container: str) -> None:
    with zipfile.ZipFile(DATA / f"hdrcnn_container_{container}.npz") as archive:
        member = archive.read("params.npy")
    path = tmp_path / "params.npz"
    refused = 0
    for seed in range(300):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("params.npy", _spoiled(member, seed))
        try:
            read_npz(path)
        except WeightsError:
            refused += 1
    assert refused > 100


def test_spoiled_indices_are_refused_or_read(tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "model.ckpt", {f"x/{i}": np.zeros(i, np.float32) for i in range(9)}, shards=2)
    index = prefix.with_name("model.ckpt.index")
    whole = index.read_bytes()
    refused = 0
    for seed in range(300):
        index.write_bytes(_spoiled(whole, seed))
        try:
            read_bundle(prefix)
        except WeightsError:
            refused += 1
    assert refused > 100
