"""Light in formats with an absolute scale, floats in TIFF and JPEG XL, deeper finished pictures, HEIC, extras."""

import builtins
import struct
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_files import by_pillow, icc_rgb
from PIL import Image as Pillow

from hdrcli import codecs, icc
from hdrcli.codecs import FORMATS, WriteOptions, _isobmff, _jxlheader, _pq
from hdrcli.color import BT709, BT2020, DISPLAY_P3, rgb_to_rgb, to_float
from hdrcli.errors import MissingExtraError, ReadError, WriteError
from hdrcli.image import Image, Metadata, Transfer

imagecodecs = pytest.importorskip("imagecodecs")
jxl = pytest.importorskip("hdrcli.codecs.jxl")

LIGHT = [name for name, row in FORMATS.items() if row.light and name != "jpg"]
META = Metadata(
    exif=Pillow.Exif().tobytes().removeprefix(b"Exif\0\0"),
    xmp=b'<x><rdf:RDF xmlns:rdf="r" xmlns:tiff="t"><rdf:Description tiff:Orientation="6" a="kept"/></rdf:RDF></x>',
    extra={"hdr:model": "m", "hdr:gamma": "1.2"},
)


def light(height: int = 40, width: int = 56) -> np.ndarray:
    """(H, W, 3) light over nine stops, soft, up to 24 times white."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grey, tint = 8 * x / width, y / height
    return np.asarray(24 * 2 ** (np.stack([grey - tint, grey - 0.5, grey + tint - 1], axis=-1) - 8), np.float32)


def write(path: Path, format: str, pixels: np.ndarray, white: float | None = 203.0, **options: Any) -> list[str]:
    meta = options.pop("meta", Metadata())
    image = Image(pixels, Transfer.LINEAR, white=white, meta=meta)
    return codecs.write(image, path, format, WriteOptions(**options))


def stops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(np.log2((a + 1e-3) / (b + 1e-3)))


# ------------------------------------------------------------------------------------------ PQ


@given(st.floats(0, 10_000))
def test_pq_undoes_itself(nits: float) -> None:
    value = np.array([nits], np.float32)
    np.testing.assert_allclose(_pq.decode(_pq.encode(value)), value, rtol=2e-4, atol=1e-4)


def test_pq_has_the_values_of_the_standard() -> None:
    levels = _pq.encode(np.array([0, 100, 203, 1000, 10_000], np.float32))
    np.testing.assert_allclose(levels, [0, 0.5081, 0.5807, 0.7518, 1], atol=1e-4)  # ITU-R BT.2408, table 1


# tolerance in stops at each format's own precision; the peak of half of the error of 10-bit AVIF is the coder's
@pytest.mark.parametrize(("format", "limit"), [("png", 0.002), ("avif", 0.15), ("jxl", 0.001), ("tif", 1e-6)])
def test_light_comes_back(format: str, limit: float, tmp_path: Path) -> None:
    for white in (203.0, 80.0):
        assert write(tmp_path / "x", format, light(), white) == []
        image = codecs.read(tmp_path / "x")
        assert image.transfer == Transfer.LINEAR
        absolute = image.pixels * ((image.white or white) / white)
        error = stops(absolute, light())
        assert error.max() < limit, f"{format}, white {white}: {error.max():.4f} stops"


def test_png_is_pq_in_bt2020_for_an_independent_reader(tmp_path: Path) -> None:
    write(tmp_path / "x.png", "png", light(), 100.0)
    data = (tmp_path / "x.png").read_bytes()
    assert data.index(b"cICP" + bytes([9, 16, 0, 1])) < data.index(b"IDAT")
    codes = cv2.cvtColor(cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2RGB) / 65535
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    nits = 10_000 * (np.maximum(codes ** (1 / m2) - c1, 0) / (c2 - c3 * codes ** (1 / m2))) ** (1 / m1)
    bt709 = nits @ np.linalg.inv(rgb_to_rgb(BT709, BT2020)).T
    assert stops(bt709 / 100, light()).max() < 0.01


def test_avif_says_what_it_is_and_other_readers_find_its_metadata(tmp_path: Path) -> None:
    write(tmp_path / "x.avif", "avif", light(), meta=META)
    data = (tmp_path / "x.avif").read_bytes()
    assert struct.unpack_from(">HHHB", data, data.index(b"colrnclx") + 8) == (9, 16, 9, 0x80)
    picture = by_pillow(tmp_path / "x.avif")
    assert picture.size == (56, 40)
    assert picture.getexif()[305].startswith("hdr ")
    assert b'a="kept"' in picture.info["xmp"]


def test_float_tiff_for_an_independent_reader(tmp_path: Path) -> None:
    negative = light() - np.float32(0.2)
    write(tmp_path / "x.tif", "tif", negative)
    data = (tmp_path / "x.tif").read_bytes()
    np.testing.assert_array_equal(imagecodecs.tiff_decode(data), negative)
    image = codecs.read(data)
    assert (image.meta.profile, image.meta.notes) == ("Linear BT.709", ())


def test_linear_profile_is_what_littlecms_takes_it_for() -> None:
    from PIL import ImageCms

    codes = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    to = ImageCms.ImageCmsProfile(BytesIO(icc.srgb_profile()))
    source = ImageCms.ImageCmsProfile(BytesIO(icc.linear_profile()))
    found = np.asarray(ImageCms.profileToProfile(Pillow.fromarray(codes), source, to)) / 255
    expected = Image(codes / np.float32(255), Transfer.LINEAR).to(Transfer.SRGB).pixels
    assert np.abs(found - expected).max() < 2 / 255


@pytest.mark.parametrize(("format", "counted"), [("png", 3), ("avif", 3), ("jxl", 2), ("tif", 2)])
def test_what_a_format_cannot_hold_is_clipped_and_counted(format: str, counted: int, tmp_path: Path) -> None:
    pixels = light()
    pixels[0, 0] = (-1, np.nan, np.inf)
    notes = write(tmp_path / "x", format, pixels)
    assert len(notes) == counted, notes
    assert all(note.startswith("1 ") for note in notes)
    assert np.isfinite(codecs.read(tmp_path / "x").pixels).all()


# ------------------------------------------------------------------------------------------ JPEG XL headers


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 56), (300, 400), (9, 3000), (1200, 16)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float16, np.float32])
def test_jxl_headers(size: tuple[int, int], kind: type) -> None:
    data = jxl._codestream(bytes(imagecodecs.jpegxl_encode(np.zeros((*size, 3), kind), lossless=True)))
    header = _jxlheader.read(data)
    bits = np.dtype(kind).itemsize * 8
    assert (header.height, header.width, header.bits) == (*size, bits)
    assert header.transfer == ("srgb" if kind is np.uint8 else "linear")
    assert header.primaries == BT709
    for end in range(2, 12):
        try:
            _jxlheader.read(data[:end])
        except (IndexError, ValueError):
            continue


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 56), (300, 400), (9, 300), (257, 16)])
def test_jxl_in_pq(size: tuple[int, int], tmp_path: Path) -> None:
    pixels = light(*size)
    assert write(tmp_path / "x.jxl", "jxl", pixels, 100.0, pq=True, meta=META) == []
    data = (tmp_path / "x.jxl").read_bytes()
    header = _jxlheader.read(jxl._codestream(data))
    assert (header.height, header.width, header.bits, header.transfer) == (*size, 16, "pq")
    assert header.primaries == BT2020
    codes, _ = _pq.to_codes(Image(pixels, Transfer.LINEAR, white=100.0), 16)
    np.testing.assert_array_equal(np.asarray(imagecodecs.jpegxl_decode(data)).reshape(codes.shape), codes)
    assert stops(codecs.read(data).pixels * 2.03, pixels).max() < 0.002
    for other in (np.float32, np.uint8):
        plain = jxl._codestream(bytes(imagecodecs.jpegxl_encode(pixels.astype(other), lossless=True)))
        with pytest.raises(ValueError, match="expected"):
            _jxlheader.as_pq(plain)


def test_jxl_with_alpha_and_grey() -> None:
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (20, 30, 4), np.uint8)
    image = codecs.read(bytes(imagecodecs.jpegxl_encode(rgba, lossless=True)))
    np.testing.assert_allclose(image.pixels * 255, rgba[..., :3], atol=1e-3)
    assert "alpha channel dropped" in image.meta.notes
    grey = rng.integers(0, 256, (20, 30), np.uint8)
    image = codecs.read(bytes(imagecodecs.jpegxl_encode(grey, lossless=True)))
    np.testing.assert_allclose(image.pixels[..., 1] * 255, grey, atol=1e-3)


# ------------------------------------------------------------------------------------------ finished pictures


@pytest.mark.parametrize("format", ["png", "tif"])
def test_sixteen_bits_of_finished_pictures(format: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    codecs.write(Image(pixels, Transfer.SRGB), tmp_path / "x", format, WriteOptions(bits=16))
    image = codecs.read(tmp_path / "x")
    assert (image.transfer, image.meta.bits) == (Transfer.SRGB, 16)
    assert np.abs(image.pixels - pixels).max() < 0.51 / 65535
    stored = cv2.imdecode(np.frombuffer((tmp_path / "x").read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored[..., ::-1], np.rint(pixels * np.float32(65535)))


@pytest.mark.parametrize("format", ["jpg", "png", "tif", "webp", "avif", "jxl"])
def test_metadata_of_finished_pictures(format: str, tmp_path: Path) -> None:
    image = Image(np.full((16, 24, 3), 0.5, np.float32), Transfer.SRGB, meta=META)
    codecs.write(image, tmp_path / "x", format)
    meta = codecs.read(tmp_path / "x").meta
    assert b'tiff:Orientation="1"' in meta.xmp
    assert b'a="kept"' in meta.xmp
    assert meta.extra == META.extra, "how it was made"
    exif = Pillow.Exif()
    exif.load(meta.exif)
    assert (exif.get(274, 1), exif[305][:4]) == (1, "hdr ")  # Pillow leaves the 1 out of AVIF
    codecs.write(image, tmp_path / "x", format, WriteOptions(metadata=False))
    meta = codecs.read(tmp_path / "x").meta
    assert (meta.exif, meta.xmp, meta.extra) == (b"", b"", {})


@pytest.mark.parametrize("format", LIGHT)
def test_metadata_of_light(format: str, tmp_path: Path) -> None:
    write(tmp_path / "x", format, light(), meta=META)
    meta = codecs.read(tmp_path / "x").meta
    assert meta.extra == META.extra
    assert b'a="kept"' in meta.xmp
    assert meta.exif


# ------------------------------------------------------------------------------------------ HEIC and extras


def heic(pixels: np.ndarray, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    mode = "RGB;16" if pixels.dtype == np.uint16 else "RGB"
    made = pillow_heif.from_bytes(mode, pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes())
    buffer = BytesIO()
    made.save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


def test_heic_with_profile_exif_and_depth() -> None:
    y, x = np.mgrid[0:64, 0:96] / 96
    scene = np.stack([x, y, 1 - x], axis=-1)
    plain = codecs.read(heic(np.rint(scene * 255).astype(np.uint8)), name="a.heic")
    assert np.abs(plain.pixels - scene).max() < 0.03
    exif = Pillow.Exif()
    exif[271] = "Maker"
    deep = codecs.read(heic(np.rint(scene * 65535).astype(np.uint16), exif=exif.tobytes()))
    assert deep.meta.bits > 8
    assert b"Maker" in deep.meta.exif
    assert np.abs(deep.pixels - scene).max() < 0.03
    columns = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
    profile = icc_rgb("Display P3", columns, struct.pack(">4s4xIH", b"curv", 1, 563))
    wide = codecs.read(heic(np.rint(scene * 255).astype(np.uint8), icc_profile=profile))
    assert wide.meta.profile == "Display P3"
    assert np.abs(wide.pixels - scene).max() > 0.03, "its colours were converted"


@pytest.mark.parametrize("data", [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), b"\xff\x0a" + bytes(9)])
def test_damaged_files_are_errors(data: bytes) -> None:
    with pytest.raises(ReadError):
        codecs.read(data, name="x")


@pytest.mark.parametrize(
    ("module", "package", "extra", "format"),
    [("avif", "imagecodecs", "codecs", "avif"), ("heic", "pillow_heif", "heif", "heic")],
)
def test_missing_extras_name_the_pip_command(
    module: str, package: str, extra: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, f"hdrcli.codecs.{module}", raising=False)
    monkeypatch.delattr(codecs, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    brand = {"avif": b"avif", "heic": b"heic"}[format]
    with pytest.raises(MissingExtraError, match=package) as caught:
        codecs.read(b"\0\0\0\x18ftyp" + brand + bytes(12))
    assert caught.value.hint == f"pip install 'hdrcli[{extra}]'"


# ------------------------------------------------------------------------------------------ boxes


def test_boxes_of_another_layout_are_refused() -> None:
    plain = bytes(imagecodecs.avif_encode(np.zeros((8, 8, 3), np.uint8)))
    once = _isobmff.with_items(plain, b"II*\0" + bytes(8), b"<x/>")
    for data in (once, plain[:40], b""):
        with pytest.raises(ValueError, match=r"laid out"):
            _isobmff.with_items(data, b"x", b"y")
    assert codecs.read(once).meta.xmp == b"<x/>"
    assert list(_isobmff.boxes(b"\0\0\0\x04free")) == []


def test_display_p3_in_avif_is_converted(tmp_path: Path) -> None:
    codes = np.full((16, 16, 3), (200, 60, 60), np.uint8)
    data = bytes(imagecodecs.avif_encode(codes, level=100, pixelformat="444", primaries=12, transfer=13, matrix=0))
    image = codecs.read(data)
    expected = to_float(icc.of_primaries("", DISPLAY_P3).srgb(codes)[0])
    assert image.meta.profile == "Display P3"
    np.testing.assert_allclose(image.pixels, expected, atol=0.02)


def test_too_large_for_the_format(tmp_path: Path) -> None:
    wide = Image(np.zeros((1, 65536, 3), np.float32), Transfer.LINEAR)
    with pytest.raises(WriteError, match="65535"):
        codecs.write(wide, tmp_path / "x", "avif")
