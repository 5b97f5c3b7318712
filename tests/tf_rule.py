"""The weights behind the parity numbers: random, but the same everywhere, because each array follows from its name."""

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DATA = Path(__file__).parent / "data"


def published_arrays(network: str) -> dict[str, NDArray[np.float32]]:
    """All arrays of a published network by the authors' names, in their order and layout; sums are checked."""
    facts = json.loads((DATA / f"{network}_params.json").read_text())
    arrays = {}
    for entry in facts["params"]:
        array = arrays[entry["name"]] = _array(facts["seed"], entry)
        total = float(array.sum(dtype=np.float64))
        assert abs(total - entry["sum"]) < 1e-3, f"{entry['name']}: sum {total} instead of {entry['sum']}"
    return arrays


def slim_arrays(network: str, divisor: int = 16) -> dict[str, NDArray[np.float32]]:
    """Arrays of a published network at a fraction of its width, by the authors' names, filled at random."""
    facts = json.loads((DATA / f"{network}_params.json").read_text())
    rng = np.random.default_rng(3)
    arrays = {}
    for entry in facts["params"]:
        shape = [size // divisor if size % 16 == 0 else size for size in entry["shape"]]
        arrays[entry["name"]] = rng.random(shape, np.float32) + np.float32(0.1)
    return arrays


def _array(seed: int, entry: dict[str, object]) -> NDArray[np.float32]:
    name, kind = str(entry["name"]), entry["kind"]
    z = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(entry["shape"])
    if kind == "weight":
        z *= entry["gain"] / np.sqrt(entry["fan_in"])
    else:
        z = {
            "bias": lambda: 0.05 * z,
            "beta": lambda: 0.05 * z,
            "gamma": lambda: 1 + 0.1 * z,
            "mean": lambda: 0.1 * z,
            "var": lambda: np.exp(0.2 * z),
        }[kind]()
    array = z.astype(np.float32) + np.float32(entry.get("offset", 0))
    return array * np.array(entry.get("last_axis_scale", 1), np.float32)


def planes(nhwc: NDArray[np.float32]) -> Tensor:
    """(N, H, W, C) to a tensor (N, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2)))


def difference(found: Tensor, expected_nhwc: NDArray[np.float32]) -> float:
    """The largest absolute difference of (N, C, H, W) from (N, H, W, C)."""
    expected = planes(expected_nhwc)
    assert found.shape == expected.shape, f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    return float((found - expected).abs().max())


def write_bundle(prefix: Path, arrays: Mapping[str, NDArray[np.generic]], shards: int = 1) -> Path:
    """Writes a TensorFlow V2 checkpoint of two blocks of entries and `shards` data files; gives the prefix."""
    prefix.parent.mkdir(exist_ok=True)
    contents = [bytearray() for _ in range(shards)]
    entries = [(b"", _field(1, shards) + _field(3, _field(1, 1)))]
    for i, name in enumerate(sorted(arrays)):
        array = arrays[name]
        shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
        content = contents[i % shards]
        kind = {"float32": 1, "float16": 19, "int64": 9}[array.dtype.name]
        entry = _field(1, kind) + _field(2, shape) + _field(3, i % shards) + _field(4, len(content))
        entries.append((name.encode(), entry + _field(5, array.nbytes) + b"\x35" + bytes(4)))
        content += array.tobytes()
    for shard, content in enumerate(contents):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    data, handles = bytearray(), []
    for part in (entries[: len(entries) // 2], entries[len(entries) // 2 :]):
        handles.append((part[-1][0] if part else b"", _append(data, part)))
    footer = (_append(data, []) + _append(data, handles)).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    prefix.with_name(prefix.name + ".index").write_bytes(data + footer)
    return prefix


def _append(data: bytearray, entries: list[tuple[bytes, bytes]]) -> bytes:
    """Adds a block of a LevelDB table and gives its handle."""
    block, before = bytearray(), b""
    for key, value in entries:
        shared = next(size for size in range(len(key), -1, -1) if key[:size] == before[:size])
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    block += struct.pack("<II", 0, 1)
    handle = _varint(len(data)) + _varint(len(block))
    data += block + bytes(5)
    return handle


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    return bytes([value & 127 | 128]) + _varint(value >> 7)
