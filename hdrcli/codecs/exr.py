"""OpenEXR (openexr.com, file format 2.0): scene light in half or single floats."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from hdrcli import __version__
from hdrcli.codecs import WriteOptions, _display, _exif, _linear, _xmp
from hdrcli.codecs._quiet import libraries_silent
from hdrcli.color import BT709, Floats, Primaries
from hdrcli.errors import ReadError, UsageError, WriteError
from hdrcli.image import Image, Metadata
from hdrcli.limits import check_size

COMPRESSIONS = {
    "none": OpenEXR.NO_COMPRESSION,
    "rle": OpenEXR.RLE_COMPRESSION,
    "zips": OpenEXR.ZIPS_COMPRESSION,
    "zip": OpenEXR.ZIP_COMPRESSION,
    "piz": OpenEXR.PIZ_COMPRESSION,
    "pxr24": OpenEXR.PXR24_COMPRESSION,
    "b44": OpenEXR.B44_COMPRESSION,
    "b44a": OpenEXR.B44A_COMPRESSION,
    "dwaa": OpenEXR.DWAA_COMPRESSION,
    "dwab": OpenEXR.DWAB_COMPRESSION,
}

OpenEXR.set_global_thread_count(os.cpu_count() or 1)

_LARGEST_HALF = 65504.0
_MAGNITUDE, _INFINITE = np.uint16(0x7FFF), 0x7C00  # bits of a half float
_ROWS = 128
_LARGEST_SINGLE = float(np.finfo(np.float32).max)
_FLAT = (OpenEXR.scanlineimage, OpenEXR.tiledimage)
_MAIN_LAYERS = ("combined", "beauty", "rgba")  # what renderers call the finished picture among its parts


def read(data: bytes, name: str) -> Image:
    """A linear BT.709 image of the RGB, or else the luminance, of the first part that has one.

    Where colours come only in named layers, the finished picture of a renderer or else the first layer is taken.
    Colours are premultiplied by alpha, as the format asks, and stay so. The picture is the data window.
    """
    with tempfile.TemporaryDirectory(prefix="hdr-") as folder, libraries_silent():
        path = Path(folder) / "picture.exr"
        path.write_bytes(data)  # reading from memory came only with OpenEXR 3.5
        index, names = _choose(_opened(path, name, header_only=True).parts, name)
        parts = [part for part in _opened(path, name).parts if part.part_index == index]
    if not parts:
        raise _display.damaged(name, "its pixels cannot be decoded")
    part = parts[0]
    channels = [part.channels[channel].pixels for channel in names]
    light = channels[0] if len(channels) == 1 else np.stack(channels, axis=-1)
    bits = channels[0].dtype.itemsize * 8
    return _linear.to_image(
        light, _described(part.header, names, bits), primaries=_primaries(part.header), white=_white(part.header)
    )


def write(image: Image, path: Path, options: WriteOptions) -> list[str]:
    """R, G and B with their chromaticities, the luminance of white where known, and provenance as attributes."""
    if options.compression not in COMPRESSIONS:
        raise UsageError(
            f"there is no EXR compression {options.compression!r}", hint="compressions: " + ", ".join(COMPRESSIONS)
        )
    high = _LARGEST_HALF if options.half else _LARGEST_SINGLE
    ready = options.half and _is_finite_half(image.samples)
    light, notes = (image.samples, []) if ready else _linear.clipped(image.pixels, -high, high)
    p = image.primaries
    header: dict[str, Any] = {}
    if options.metadata:
        header |= {"software": f"hdr {__version__}"} | _exif.as_attributes(image.meta.exif) | image.meta.extra
        header |= {"xmp": image.meta.xmp.decode("utf-8", "replace")} if image.meta.xmp else {}
    header |= {
        "type": OpenEXR.scanlineimage,
        "compression": COMPRESSIONS[options.compression],
        "chromaticities": (*p.red, *p.green, *p.blue, *p.white),
    }
    if image.white is not None:
        header["whiteLuminance"] = float(image.white)
    # OpenEXR's module reads views of arrays as if they were whole ones, so the pixels must be contiguous.
    pixels = np.ascontiguousarray(light, np.float16 if options.half else np.float32)
    try:
        OpenEXR.File(header, {"RGB": pixels}).write(str(path))
    except RuntimeError as error:
        raise WriteError(
            f"{path} cannot be written: {error}", hint="check the folder, its permissions and space"
        ) from error
    return notes


def _is_finite_half(light: Floats) -> bool:
    """Whether these are half floats, none of them infinite; by their bits, which is far quicker than comparing them."""
    if light.dtype != np.float16:
        return False
    bits = np.ascontiguousarray(light).view(np.uint16)
    return all(int((bits[top : top + _ROWS] & _MAGNITUDE).max()) < _INFINITE for top in range(0, len(bits), _ROWS))


def _opened(path: Path, name: str, *, header_only: bool = False) -> Any:
    try:
        return OpenEXR.File(str(path), separate_channels=True, header_only=header_only)
    except (RuntimeError, ValueError) as error:
        raise _display.damaged(name, str(error).replace(str(path), name)) from error


def _choose(parts: Sequence[Any], name: str) -> tuple[int, tuple[str, ...]]:
    """The part to read and its channels: red, green and blue, or luminance alone."""
    found: list[str] = []
    for index, part in enumerate(parts):
        (left, top), (right, bottom) = part.header["dataWindow"]
        check_size(int(right) - int(left) + 1, int(bottom) - int(top) + 1, name)
        try:
            channels = [channel.name for channel in part.header["channels"]]
        except UnicodeDecodeError as error:
            raise _display.damaged(name, "its channels have no readable names") from error
        found += channels
        if part.header.get("type", OpenEXR.scanlineimage) in _FLAT and (chosen := _colours(channels)):
            return index, chosen
    if {"Y", "RY", "BY"} <= set(found):
        raise ReadError(
            f"{name} holds luminance and reduced chroma, which hdr does not read",
            hint="save it with R, G and B channels",
        )
    raise ReadError(
        f"{name} holds no colour channels to read, only {', '.join(found) or 'none'}",
        hint="save it as a flat (not deep) picture with R, G and B channels",
    )


def _colours(channels: Iterable[str]) -> tuple[str, ...]:
    """R, G and B without a layer; else of a layer; else Y alone; else nothing."""
    names = {channel.lower(): channel for channel in channels}
    layers = sorted(
        (name[:-1] for name in names if name == "r" or name.endswith(".r")),
        key=lambda layer: (layer != "", layer.rstrip(".").rsplit(".")[-1] not in _MAIN_LAYERS, layer),
    )
    for layer in layers:
        if all(layer + colour in names for colour in "gb"):
            return tuple(names[layer + colour] for colour in "rgb")
    return (names["y"],) if "y" in names and "ry" not in names else ()


def _described(header: dict[str, Any], names: Sequence[str], bits: int) -> Metadata:
    notes = []
    layer = names[0].rpartition(".")[0]
    if layer:
        notes.append(f"layer {layer!r} was read")
    (low, high), (first, last) = header["dataWindow"], header["displayWindow"]
    if tuple(low) != tuple(first) or tuple(high) != tuple(last):
        notes.append("the data window, which differs from the display window, was read")
    if any(channel.name == "A" for channel in header["channels"]) and not layer:
        notes.append(_display.ALPHA_DROPPED)
    extra = {key: value for key, value in header.items() if isinstance(value, str) and key not in ("name", "view")}
    xmp = _xmp.for_output(extra.pop("xmp", "").encode(), {})
    return Metadata(bits=bits, notes=tuple(notes), extra=extra, xmp=xmp)


def _primaries(header: dict[str, Any]) -> Primaries:
    """The chromaticities of the file; BT.709, as the format says, where there are none or they make no sense."""
    stored = header.get("chromaticities")
    return _linear.chromaticities("EXR chromaticities", stored) if isinstance(stored, tuple) else BT709


def _white(header: dict[str, Any]) -> float | None:
    white = header.get("whiteLuminance")
    return float(white) if isinstance(white, float) and np.isfinite(white) and white > 0 else None
