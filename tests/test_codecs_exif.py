"""Orientation and EXIF: read, applied, kept, and written into finished pictures."""

import struct
from pathlib import Path

import cv2
import numpy as np
import picture_files as make
import pytest
from picture_files import by_pillow, same, saved
from PIL import ExifTags, ImageOps
from PIL import Image as Pillow

from hdrcli import codecs
from hdrcli.image import Image, Metadata, Transfer

NOISE = np.random.default_rng(11).integers(0, 256, (9, 13, 3), np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_come_the_right_way_up(format: str, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    smooth = cv2.resize(NOISE[:2, :3], (48, 32), interpolation=cv2.INTER_CUBIC)
    stored = Pillow.fromarray(smooth)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    image = codecs.read(saved(stored, format, exif=exif, **options))
    stored.getexif()[ExifTags.Base.Orientation] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored)) / 255
    assert image.pixels.shape == ((48, 32, 3) if orientation > 4 else (32, 48, 3))
    same(image, expected, atol=6 / 255 if format == "JPEG" else 1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_tiffs_come_the_right_way_up(dtype: type, orientation: int) -> None:
    stored = Pillow.fromarray(NOISE)
    stored.getexif()[ExifTags.Base.Orientation] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    samples = NOISE.astype(dtype) * (257 if dtype == np.uint16 else np.float32(1 / 255))
    same(codecs.read(make.tiff(samples, 2, t274=(orientation,))), expected / 255)


def test_the_exif_block_is_kept_as_it_was_and_written_upright(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = codecs.read(saved(NOISE, "JPEG", exif=exif))
    kept = Pillow.Exif()
    kept.load(image.meta.exif)
    assert kept[ExifTags.Base.Orientation] == 6
    assert image.meta.exif[:2] in (b"II", b"MM")
    codecs.write(image, tmp_path / "x.jpg", "jpg")
    again = codecs.read(tmp_path / "x.jpg")
    assert again.pixels.shape == image.pixels.shape
    assert by_pillow(tmp_path / "x.jpg").getexif()[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_orientations_that_do_not_exist_are_upright(value: int) -> None:
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = value
    same(codecs.read(saved(NOISE, "PNG", exif=exif)), NOISE / 255)


def full_exif(order: str = "<", note: bytes = b"private note") -> bytes:
    main = {
        ExifTags.Base.Make: make.ascii_tag("Maker"),
        ExifTags.Base.Model: make.ascii_tag("Model X"),
        ExifTags.Base.Orientation: (make.SHORT, (8,)),
        ExifTags.Base.Software: make.ascii_tag("of the camera"),
        ExifTags.Base.StripOffsets: (make.LONG, (4711,)),  # as in the EXIF of a raw file
        ExifTags.Base.ImageWidth: (make.LONG, (4712,)),
    }
    inner = {
        ExifTags.Base.ExposureTime: (make.RATIONAL, (1, 250)),
        ExifTags.Base.ISOSpeedRatings: (make.SHORT, (400,)),
        ExifTags.Base.ExifImageWidth: (make.LONG, (9999,)),
        ExifTags.Base.ColorSpace: (make.SHORT, (65535,)),
        ExifTags.Base.MakerNote: (make.UNDEFINED, tuple(note)),
        ExifTags.Base.DateTimeOriginal: make.ascii_tag("2024:05:06 07:08:09"),
    }
    place = {
        ExifTags.GPS.GPSLatitudeRef: make.ascii_tag("N"),
        ExifTags.GPS.GPSLatitude: (make.RATIONAL, (52, 1, 30, 1, 31, 2)),
    }
    return make.exif(main, {ExifTags.IFD.Exif: inner, ExifTags.IFD.GPSInfo: place}, order)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tif"])
def test_exif_goes_into_written_files(format: str, order: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{format}"
    image = Image((NOISE / 255).astype(np.float32), Transfer.SRGB, meta=Metadata(exif=full_exif(order)))
    assert codecs.write(image, path, format) == []
    exif = by_pillow(path).getexif()
    assert (exif[ExifTags.Base.Make], exif[ExifTags.Base.Model]) == ("Maker", "Model X")
    assert exif.get(ExifTags.Base.Orientation, 1) == 1
    assert exif[ExifTags.Base.Software].startswith("hdr ")
    assert exif.get(ExifTags.Base.StripOffsets) != 4711 and exif.get(ExifTags.Base.ImageWidth) != 4712
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    assert float(inner[ExifTags.Base.ExposureTime]) == 0.004
    assert inner[ExifTags.Base.ISOSpeedRatings] == 400
    assert inner[ExifTags.Base.MakerNote] == b"private note"
    assert inner[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert (inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight]) == (13, 9)
    assert inner[ExifTags.Base.ColorSpace] == 1
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (52.0, 30.0, 15.5)


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tif"])
def test_exif_survives_reading_and_writing(format: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    image = Image((NOISE / 255).astype(np.float32), Transfer.SRGB, meta=Metadata(exif=full_exif()))
    codecs.write(image, path, format)
    first = codecs.read(path)
    codecs.write(first, path, format)
    assert codecs.read(path).meta.exif == first.meta.exif
    assert b"Model X" in first.meta.exif and b"private note" in first.meta.exif


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("block", [b"", b"II*\0garbage garbage garbage", b"\xff" * 40], ids=["none", "garbage", "ones"])
def test_without_usable_exif_the_software_alone_is_written(format: str, block: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    codecs.write(Image(np.zeros((2, 3, 3), np.float32), Transfer.SRGB, meta=Metadata(exif=block)), path, format)
    assert by_pillow(path).getexif()[ExifTags.Base.Software].startswith("hdr ")


def test_names_in_utf8_are_copied_byte_by_byte(tmp_path: Path) -> None:
    name = "José Ångström".encode()
    block = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 315, 2, len(name) + 1, 26) + b"\0\0\0\0" + name + b"\0"
    for format in ("jpg", "png", "webp", "tif"):
        path = tmp_path / "x"
        codecs.write(Image(np.zeros((2, 3, 3), np.float32), Transfer.SRGB, meta=Metadata(exif=block)), path, format)
        assert name + b"\0" in path.read_bytes(), format


def test_a_maker_note_too_long_for_jpeg_is_left_out_and_said(tmp_path: Path) -> None:
    meta = Metadata(exif=full_exif(note=bytes(70_000)))
    image = Image(np.zeros((2, 3, 3), np.float32), Transfer.SRGB, meta=meta)
    notes = codecs.write(image, tmp_path / "x", "jpg")
    assert len(notes) == 1 and "too long" in notes[0]
    inner = by_pillow(tmp_path / "x").getexif().get_ifd(ExifTags.IFD.Exif)
    assert inner[ExifTags.Base.ISOSpeedRatings] == 400 and ExifTags.Base.MakerNote not in inner
    assert codecs.write(image, tmp_path / "x", "png") == []


def test_no_thumbnail_of_the_input_is_passed_on(tmp_path: Path) -> None:
    thumbnail = b"\xff\xd8 a thumbnail \xff\xd9"
    first = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 271, 2, 4, int.from_bytes(b"Cam\0", "little"), 26)
    second = (
        struct.pack("<H", 2) + struct.pack("<HHII", 513, 4, 1, 56) + struct.pack("<HHII", 514, 4, 1, len(thumbnail))
    )
    block = first + second + b"\0\0\0\0" + thumbnail
    codecs.write(
        Image(np.zeros((2, 2, 3), np.float32), Transfer.SRGB, meta=Metadata(exif=block)), tmp_path / "x", "jpg"
    )
    data = (tmp_path / "x").read_bytes()
    assert b"Cam\0" in data and b"a thumbnail" not in data
