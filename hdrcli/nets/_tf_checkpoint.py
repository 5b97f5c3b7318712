"""Weights that TensorFlow 1 and TensorLayer wrote, read with numpy alone; nothing that a file holds is ever run."""

import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hdrcli.errors import WeightsError
from hdrcli.network import StateDict

Array = NDArray[Any]

_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, struct.error)
_LEAVES = {
    **dict.fromkeys(("W_conv2d", "W_deconv2d", "kernel", "weights", "gamma"), "weight"),
    **dict.fromkeys(("b_conv2d", "b_deconv2d", "bias", "biases", "beta"), "bias"),
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def by_position(
    arrays: Sequence[Array], network: nn.Module, layers: Mapping[str, str], source: str
) -> dict[str, Array]:
    """Names arrays that come in TensorLayer's order: layer by layer as the authors made them.

    layers: published layer name to the module's name in `network`, in that order. source: the file's name, for errors.
    """
    names = [
        f"{ours}.{leaf}"
        for ours in layers.values()
        for leaf in (
            ("bias", "weight", "running_mean", "running_var")
            if isinstance(network.get_submodule(ours), nn.BatchNorm2d)
            else ("weight", "bias")
        )
    ]
    if len(arrays) != len(names):
        raise WeightsError(
            f"{source} holds {len(arrays)} arrays where the network has {len(names)}",
            hint="check that the file belongs to this network",
        )
    return dict(zip(names, arrays, strict=True))


def by_name(variables: Mapping[str, Array], layers: Mapping[str, str]) -> dict[str, Array]:
    """Names TensorFlow variables as `layers` says; those of no layer, such as optimiser slots, are left out."""
    named = {}
    for name, array in variables.items():
        layer, _, leaf = name.rpartition("/")
        if layer in layers and leaf in _LEAVES:
            named[f"{layers[layer]}.{_LEAVES[leaf]}"] = array
    return named


def fit(network: nn.Module, named: Mapping[str, Array], source: str) -> StateDict:
    """The state dict of `network`, of which only the shapes are looked at, from arrays in TensorFlow's layout.

    All of the network's state must be there; what else is there is left out. Raises WeightsError with the first faults.
    """
    state: StateDict = {}
    faults = []
    for name, own in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name not in named:
            faults.append(f"{name} is missing")
        else:
            array = _torch_layout(named[name]) if name.endswith("weight") else named[name]
            state[name] = torch.from_numpy(np.array(array, np.float32, order="C"))
            if array.shape != tuple(own.shape):
                faults.append(f"{name} has the shape {array.shape} instead of {tuple(own.shape)}")
            elif not state[name].isfinite().all():
                faults.append(f"{name} holds numbers that are not finite")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{source} does not fit the network: {'; '.join(faults[:3])}{more}",
            hint="check that the files belong to this network and are complete, and its settings, such as the width",
        )
    return state


def _torch_layout(weight: Array) -> Array:
    """Kernels (h, w, in, out), transposed ones (h, w, out, in), matrices (in, out)."""
    return weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight.T


# TensorLayer's save_npz: a zip of .npy members, the lists pickled.


def read_npz(path: Path) -> list[Array]:
    """The arrays of a TensorLayer `save_npz` file in their order: one pickled list `params`, or param0, param1 ...

    The pickle is interpreted by classes of our own that can only describe arrays. Raises WeightsError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        if "params" in members:
            return _pickled_arrays(members["params"])
        return [np.lib.format.read_array(BytesIO(members[f"param{i}"])) for i in range(len(members))]
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}", hint="check the path") from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError, pickle.UnpicklingError, *_DAMAGE) as error:
        raise WeightsError(
            f"{path} is not a TensorLayer weight file: {error}", hint="download it again from its authors"
        ) from error


def _pickled_arrays(member: bytes) -> list[Array]:
    """The arrays in an .npy member whose dtype is object: magic, version, header length, header, pickle."""
    version, rest = member[6], member[8:]
    size = struct.unpack_from("<H" if version == 1 else "<I", rest)[0]
    start = (2 if version == 1 else 4) + size
    outer = _ArrayUnpickler(BytesIO(rest[start:]), encoding="latin1").load()
    return [item.array() for item in outer.items()]


class _PickledDtype:
    """Stands in for numpy.dtype: remembers the type code and the byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _PickledArray:
    """Stands in for numpy.ndarray: remembers the shape, the type, the order in memory and the bytes."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def items(self) -> list["_PickledArray"]:
        """The elements of an array of objects."""
        if not isinstance(self.content, list) or not all(isinstance(item, _PickledArray) for item in self.content):
            raise ValueError("it does not hold a list of arrays")
        return self.content

    def array(self) -> Array:
        if self.dtype.code not in ("f2", "f4", "f8"):
            raise ValueError(f"it holds an array of type {self.dtype.code}")
        content = _latin1(self.content) if isinstance(self.content, str) else self.content
        values = np.frombuffer(content, np.dtype(self.dtype.code).newbyteorder(self.dtype.order))
        return values.reshape(self.shape, order="F" if self.fortran else "C")


def _latin1(text: str, _: str = "latin1") -> bytes:
    """Stands in for _codecs.encode, by which Python 3 writes bytes into an old pickle."""
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    _KNOWN: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}")
        return self._KNOWN[module, name]


# TensorFlow's tensor bundle ("V2 checkpoint"): an index, which is a LevelDB table of protocol buffers, and data shards.

_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TENSOR_TYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}


def bundle_prefix(path: Path) -> Path | None:
    """The checkpoint that `path` is a part or the prefix or the folder of, or None; WeightsError for other folders."""
    if path.is_dir():
        indices = sorted(path.glob("*.index"))
        if len(indices) != 1:
            raise WeightsError(
                f"the folder {path} holds {len(indices)} TensorFlow checkpoints instead of one",
                hint="name the .index file of the checkpoint that is meant",
            )
        return indices[0].with_suffix("")
    if path.suffix == ".index":
        return path.with_suffix("")
    if shard := re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name):
        return path.with_name(shard[1])
    return path if path.with_name(path.name + ".index").is_file() else None


def read_bundle(prefix: Path) -> dict[str, Array]:
    """The floating-point variables of the checkpoint PREFIX.index, PREFIX.data-00000-of-00001 ... by name.

    The arrays are read-only views of the files. Raises WeightsError.
    """
    index = prefix.with_name(prefix.name + ".index")
    try:
        entries = dict(_table(index.read_bytes()))
        count = _message(entries.pop(b"")).get(1, [1])[0]
        shards = [
            np.memmap(prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{count:05d}"), np.uint8, "r")
            for shard in range(count)
        ]
        return dict(_tensors(entries, shards))
    except OSError as error:
        raise WeightsError(
            f"{error.filename or index} cannot be read: {error.strerror}",
            hint="a checkpoint is an .index file with all its .data files beside it",
        ) from error
    except _DAMAGE as error:
        raise WeightsError(
            f"{index} is not an intact TensorFlow checkpoint: {error}", hint="download it again from its authors"
        ) from error


def _tensors(entries: Mapping[bytes, bytes], shards: Sequence[Array]) -> Iterator[tuple[str, Array]]:
    """BundleEntryProto: 1 type, 2 shape, 3 shard, 4 offset, 5 size, 7 slices."""
    for name, value in entries.items():
        entry = _message(value)
        dtype = _TENSOR_TYPES.get(entry.get(1, [0])[0])
        if dtype is None or 7 in entry:
            continue
        shape = [_message(dimension).get(1, [0])[0] for dimension in _message(entry.get(2, [b""])[0]).get(2, [])]
        offset, size = entry.get(4, [0])[0], entry[5][0]
        content = shards[entry.get(3, [0])[0]][offset : offset + size]
        yield name.decode(), content.view(dtype).reshape(shape)


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of a LevelDB table."""
    footer = data[-_FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != _TABLE_MAGIC:
        raise ValueError("its last bytes are not those of a LevelDB table")
    _, at = _handle(footer, 0)
    top, _ = _handle(footer, at)
    for _, value in _block(data, top):
        yield from _block(data, _handle(value, 0)[0])


def _handle(data: bytes, at: int) -> tuple[slice, int]:
    """Where a block lies, and where the bytes that say so end."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return slice(offset, offset + size), at


def _block(data: bytes, place: slice) -> Iterator[tuple[bytes, bytes]]:
    """Entries whose keys are shortened by what they share with the key before; restart offsets close the block."""
    if data[place.stop] != 0:
        raise ValueError("its index is compressed")
    block = data[place]
    restarts = struct.unpack("<I", block[-4:])[0]
    at, end, key = 0, len(block) - 4 * (restarts + 1), b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        size, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + size]
        at += fresh + size


def _message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer by number: integers for varints, bytes for the rest."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            value, at = data[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at
