"""Feeds damaged files of every kind to what reads them: run `python tests/fuzzing.py 10000` for so many inputs.

Whatever the damage, a picture, RAW file, card, weight file or recipe is either read or refused with an HdrError: no
other exception, no crash of this process, no hang. A picture that was cut short, and a PNG however damaged, may give
other pixels than the whole file only with a note.
"""

import io
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from picture_files import png, tiff
from PIL import Image as Pillow
from standins import save_standin

from hdrcli import cards, codecs, raw, zoo
from hdrcli.codecs import dng
from hdrcli.errors import HdrError, ReadError
from hdrcli.image import Image, Transfer
from hdrcli.isolation import Decoders, Limits
from hdrcli.nets._torch_checkpoint import read_state_dict
from hdrcli.training import recipe

LIMITS = Limits(pixels=4_000_000, seconds=20.0, memory=1 << 30)


class Seed(NamedTuple):
    """A whole file. read: gives something for its content, or raises. isolated: whether in a decoder process."""

    name: str
    data: bytes
    read: Callable[..., Any]
    isolated: bool = True


def pictures(folder: Path) -> Iterator[Seed]:
    """Small pictures in every format that is read, in several kinds where there are such."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 30 * 44 * 3, dtype=np.float32).reshape(30, 44, 3)
    finished = Image((ramp + rng.random(ramp.shape, np.float32)) / 2, Transfer.SRGB)
    light = Image(finished.pixels * 4, Transfer.LINEAR)
    options = codecs.DEFAULTS
    kinds = [(finished, format, options) for format in ("jpg", "png", "tif", "webp", "avif", "jxl")]
    kinds += [(finished, format, replace(options, bits=16)) for format in ("png", "tif")]
    kinds += [(light, format, options) for format in ("exr", "hdr", "tif", "png", "avif", "jxl")]
    kinds += [(light, "exr", replace(options, compression=name)) for name in ("none", "piz", "dwaa", "rle", "b44")]
    kinds += [(light, "jpg", replace(options, base=finished))]
    for number, (image, format, chosen) in enumerate(kinds):
        path = folder / f"{number}.{format}"
        codecs.write(image, path, format, chosen)
        yield Seed(path.name, path.read_bytes(), codecs.read)
    codes = np.rint(finished.pixels * 255).astype(np.uint8)
    yield Seed("grey.png", png(codes[..., 0] & 1, 0, 1), codecs.read)
    yield Seed("plain.tif", tiff(codes, 2), codecs.read)
    yield Seed("planes.tif", tiff(codes, 2, order=">", planar=2), codecs.read)
    for format in ("BMP", "JPEG", "WEBP"):
        buffer = io.BytesIO()
        extra = {"progressive": True} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
        Pillow.fromarray(codes).save(buffer, format, **extra)
        yield Seed(f"pillow.{format.lower()}", buffer.getvalue(), codecs.read)


def mosaics(folder: Path) -> Iterator[Seed]:
    """RAW files."""
    counts = np.random.default_rng(0).integers(64, 1000, (32, 48), dtype=np.uint16)
    matrix = np.array([[0.9, -0.2, -0.1], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6]])
    for bits in (10, 16):
        path = folder / f"{bits}.dng"
        dng.write(path, counts, bits=bits, black=64, white=1023, as_shot_neutral=(0.5, 1, 0.6), color_matrix=matrix)
        yield Seed(path.name, path.read_bytes(), raw.read)
    yield Seed("mosaic.png", png(counts, 0, 16), partial(raw.read, sensor="native"))


def weights(folder: Path) -> Iterator[Seed]:
    """A card, weights in our format and in torch's two, and the recipes."""
    save_standin("lumen", folder)
    card = cards.read_card(folder / "lumen.toml")
    place = folder / "damaged"
    place.mkdir()

    def as_card(data: bytes, *, name: str) -> Any:
        (place / "lumen.toml").write_bytes(data)
        return zoo.open_card(replace(cards.read_card(place / "lumen.toml"), folder=folder))

    def as_weights(data: bytes, *, name: str) -> Any:
        path = place / card.file
        path.write_bytes(data)
        return zoo.open_card(replace(card, folder=place, sha256=cards.digest(path)))

    def as_checkpoint(data: bytes, *, name: str) -> Any:
        (place / name).write_bytes(data)
        return read_state_dict(place / name)

    def as_recipe(data: bytes, *, name: str) -> Any:
        (place / name).write_bytes(data)
        return recipe.read(place / name)

    yield Seed("lumen.toml", (folder / "lumen.toml").read_bytes(), as_card, isolated=False)
    yield Seed("lumen.safetensors", card.weights.read_bytes(), as_weights, isolated=False)
    state = {"layer.weight": torch.arange(120.0).reshape(2, 3, 4, 5), "layer.bias": torch.zeros(7)}
    for name, zipped in (("zip.pth", True), ("old.pth", False)):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
        yield Seed(name, buffer.getvalue(), as_checkpoint, isolated=False)
    for name in recipe.shipped():
        path = Path(recipe.__file__).parent / "recipes" / f"{name}.toml"
        yield Seed(path.name, path.read_bytes(), as_recipe, isolated=False)


def cut(data: bytes, rng: random.Random, others: list[Seed]) -> bytes:
    return data[: rng.randrange(len(data))]


def bits(data: bytes, rng: random.Random, others: list[Seed]) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def sizes(data: bytes, rng: random.Random, others: list[Seed]) -> bytes:
    """An extreme number where one is likely: in the first part of the file."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        width = rng.choice((1, 2, 4, 4, 8))
        number = rng.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, 65535, 70000))
        place = rng.randrange(max(1, min(len(data), rng.choice((64, 512, 8192))) - width))
        value = (number % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))
        damaged[place : place + width] = value
    return bytes(damaged)


def spliced(data: bytes, rng: random.Random, others: list[Seed]) -> bytes:
    """The beginning of one file and the end of another."""
    other = rng.choice(others).data
    return data[: rng.randrange(1, min(len(data), 2000))] + other[rng.randrange(len(other)) :]


def block(data: bytes, rng: random.Random, others: list[Seed]) -> bytes:
    """A part overwritten, left out or repeated."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 4, 16, 200, 2000)))
    part = rng.choice(
        (bytes(end - start), rng.randbytes(end - start), b"", data[start:end] * 2, b"\xff" * (end - start))
    )
    return data[:start] + part + data[end:]


DAMAGES = (cut, bits, sizes, spliced, block)


def attempt(seed: Seed, data: bytes, decoders: Decoders) -> Any:
    """What is read, or the HdrError that it is refused with."""
    try:
        if seed.isolated:
            return decoders(seed.read, data, name=seed.name)
        return seed.read(data, name=seed.name)
    except HdrError as error:
        assert error.message
        return error


def fault_of(seed: Seed, damage: Callable[..., bytes], whole: Any, found: Any) -> str:
    """What must not be, empty where all is well."""
    if isinstance(found, ReadError):
        if "took more than" in found.message:
            return "limit"
        if "crashed (exit code" in found.message:
            return "exception"
    strict = damage is cut or seed.name.endswith(".png")
    if isinstance(found, HdrError) or not (seed.isolated and strict) or found.meta.notes != whole.meta.notes:
        return ""
    before, after = (getattr(item, "pixels", getattr(item, "counts", None)) for item in (whole, found))
    same = before.shape == after.shape and np.array_equal(before, after)
    return "" if same else "garbage without a note"


def check(count: int, number: int = 0, keep: Path | None = None) -> Counter[str]:
    """Reads `count` damaged files; AssertionError where something comes of one that must not.

    number: of the random sequence. keep: a folder for the files that were not taken well. Returns how often each
    outcome was seen.
    """
    rng = random.Random(number)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as place, Decoders(LIMITS) as decoders:
        folder = Path(place)
        seeds = [*pictures(folder), *mosaics(folder), *weights(folder)]
        wholes = [attempt(seed, seed.data, decoders) for seed in seeds]
        for seed, whole in zip(seeds, wholes, strict=True):
            assert not isinstance(whole, HdrError), f"{seed.name}: {whole}"
        faults = []
        for index in range(count):
            which = index % len(seeds)
            damage = rng.choice(DAMAGES)
            data = damage(seeds[which].data, rng, seeds)
            if data == seeds[which].data:
                continue
            start = time.perf_counter()
            found = attempt(seeds[which], data, decoders)
            seconds = time.perf_counter() - start
            crashed = isinstance(found, ReadError) and "crashed" in found.message
            outcomes["crashed decoder" if crashed else "refused" if isinstance(found, HdrError) else "read"] += 1
            fault = fault_of(seeds[which], damage, wholes[which], found)
            if not fault and seconds > LIMITS.seconds:
                fault = "slow"
            if fault:
                said = found if isinstance(found, HdrError) else ""
                faults.append(f"{index} {seeds[which].name} {damage.__name__}: {fault} {said}")
                if keep:
                    (keep / f"{index}-{seeds[which].name}").write_bytes(data)
    assert not faults, "\n".join(faults)
    return outcomes


if __name__ == "__main__":
    kept = Path("fuzzing-faults")
    kept.mkdir(exist_ok=True)
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(dict(check(inputs, int(sys.argv[2]) if len(sys.argv) > 2 else 0, kept)))
