"""What holds for every format: the table, round trips, damaged and foreign files, sizes, what is printed."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import picture_files as make
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as Pillow

from hdrcli import codecs
from hdrcli.codecs import FORMATS, WriteOptions
from hdrcli.codecs._quiet import libraries_silent
from hdrcli.color import BT2020
from hdrcli.errors import HdrError, ReadError, UsageError, WriteError, WrongStateError
from hdrcli.image import Image, Metadata, Transfer

WRITABLE = [name for name, row in FORMATS.items() if row.writes]
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))


def scene(height: int = 24, width: int = 32) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1], smooth enough for lossy formats."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([x, y, 1 - (x + y) / 2], axis=-1).astype(np.float32)


def written(folder: Path, format: str, pixels: np.ndarray, **more) -> Path:
    path = folder / f"made.{format}"
    codecs.write(Image(pixels, FORMATS[format].holds), path, format, **more)
    return path


def test_importing_the_package_loads_no_decoder() -> None:
    script = "import sys, hdrcli.codecs; print({'cv2', 'OpenEXR', 'PIL', 'torch', 'rawpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_formats_by_suffix() -> None:
    assert codecs.format_of("a/B.JPEG") == "jpg"
    assert codecs.format_of(Path("x.tiff")) == "tif"
    assert codecs.format_of("x.exr") == "exr"
    assert codecs.format_of("x.dng") is None
    assert codecs.format_of("jpg") is None
    suffixes = [suffix for row in FORMATS.values() for suffix in row.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (24, 32), (33, 17)])
def test_round_trip(format: str, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = scene(*size)
    image = codecs.read(written(tmp_path, format, pixels))
    tolerance = {"jpg": 0.04, "webp": 0.12, "avif": 0.03, "jxl": 0.11, "exr": 2.0**-11, "hdr": 2.0**-8 / 2 + 1e-6}.get(
        format, 0.5 / 255 + 1e-6
    )
    assert image.pixels.shape == (*size, 3)
    assert image.pixels.dtype == np.float32 and image.pixels.flags.c_contiguous
    assert image.transfer == FORMATS[format].holds
    assert image.meta.source == f"made.{format}"
    np.testing.assert_allclose(image.pixels, pixels, atol=tolerance, err_msg=format)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pixels=SIZES.flatmap(lambda size: arrays.arrays(np.uint8, size)), format=st.sampled_from(["png", "tif"]))
def test_eight_bit_values_survive_exactly(pixels: np.ndarray, format: str, tmp_path: Path) -> None:
    path = written(tmp_path, format, (pixels / 255).astype(np.float32))
    np.testing.assert_array_equal(np.rint(codecs.read(path).pixels * 255), pixels)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pixels=SIZES.flatmap(lambda size: arrays.arrays(np.float16, size, elements=st.floats(-65504, 65504, width=16))))
def test_half_floats_survive_exactly(pixels: np.ndarray, tmp_path: Path) -> None:
    path = written(tmp_path, "exr", pixels.astype(np.float32))
    np.testing.assert_array_equal(codecs.read(path).pixels, pixels)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pixels=SIZES.flatmap(lambda size: arrays.arrays(np.float32, size, elements=st.floats(0, 2.0**100, width=32))))
def test_radiance_keeps_one_part_in_256_of_the_largest(pixels: np.ndarray, tmp_path: Path) -> None:
    read = codecs.read(written(tmp_path, "hdr", pixels)).pixels
    largest = pixels.max(axis=-1, keepdims=True).astype(np.float64)
    assert np.all(np.abs(read - pixels.astype(np.float64)) <= largest / 255 + 1e-31)


@pytest.mark.parametrize("format", WRITABLE)
def test_bytes_and_paths_read_alike_whatever_the_name(format: str, tmp_path: Path) -> None:
    path = written(tmp_path, format, scene())
    misnamed = path.rename(tmp_path / "picture.txt")
    by_path, by_bytes = codecs.read(misnamed), codecs.read(misnamed.read_bytes())
    np.testing.assert_array_equal(by_path.pixels, by_bytes.pixels)
    assert (by_path.meta.source, by_bytes.meta.source) == ("picture.txt", "-")
    assert codecs.read(misnamed.read_bytes(), name="camera.jpg").meta.source == "camera.jpg"


@pytest.mark.parametrize("format", [name for name in WRITABLE if not FORMATS[name].light])
def test_pixels_of_the_wrong_kind_are_refused(format: str, tmp_path: Path) -> None:
    wrong = Transfer.LINEAR if FORMATS[format].holds == Transfer.SRGB else Transfer.SRGB
    with pytest.raises(WrongStateError):
        codecs.write(Image(scene(), wrong), tmp_path / "x", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", [name for name in WRITABLE if name != "exr"])
def test_wide_primaries_are_never_taken_for_bt709(format: str, tmp_path: Path) -> None:
    with pytest.raises(WrongStateError):
        codecs.write(Image(scene(), FORMATS[format].holds, primaries=BT2020), tmp_path / "x", format)


@pytest.mark.parametrize("format", [name for name in WRITABLE if FORMATS[name].holds == Transfer.SRGB])
def test_values_out_of_range_are_clipped_and_counted(format: str, tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), 0.5, np.float32)
    pixels[0, 0] = (-0.2, 1.3, 0.5)
    notes = codecs.write(Image(pixels, Transfer.SRGB), tmp_path / "x", format)
    assert notes == ["2 values outside [0, 1] clipped"]
    pixels[0, 0] = (-0.001, 1.001, 0.5)
    assert codecs.write(Image(pixels, Transfer.SRGB), tmp_path / "x", format) == []
    pixels[0, 0, 0] = np.nan
    assert codecs.write(Image(pixels, Transfer.SRGB), tmp_path / "x", format) == [
        "1 values that are not finite numbers written as black or white"
    ]


def test_rounding_is_to_the_nearest(tmp_path: Path) -> None:
    pixels = np.array([0, 0.4, 0.6, 1.4, 1.6, 254.4, 254.6, 255], np.float32).repeat(3).reshape(1, 8, 3) / 255
    stored = cv2.imread(str(written(tmp_path, "png", pixels)), cv2.IMREAD_UNCHANGED)
    assert stored[0, :, 0].tolist() == [0, 0, 1, 1, 2, 254, 255, 255]


@pytest.mark.parametrize("format", WRITABLE)
def test_writing_twice_gives_the_same_bytes(format: str, tmp_path: Path) -> None:
    first = written(tmp_path, format, scene()).read_bytes()
    assert written(tmp_path, format, scene()).read_bytes() == first


@pytest.mark.parametrize("format", WRITABLE)
def test_a_folder_that_is_not_there(format: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError) as caught:
        codecs.write(Image(scene(), FORMATS[format].holds), tmp_path / "no" / "x", format)
    assert caught.value.hint


def test_formats_and_options_that_are_not_there(tmp_path: Path) -> None:
    srgb, linear = Image(scene(), Transfer.SRGB), Image(scene(), Transfer.LINEAR)
    for format in ("bmp", "gif"):
        with pytest.raises(UsageError):
            codecs.write(srgb, tmp_path / "x", format)
    with pytest.raises(UsageError):
        codecs.write(srgb, tmp_path / "x", "jpg", WriteOptions(quality=0))
    with pytest.raises(UsageError):
        codecs.write(linear, tmp_path / "x", "exr", WriteOptions(compression="best"))


@pytest.mark.parametrize(("format", "width"), [("jpg", 65501), ("webp", 16384)])
def test_sides_longer_than_the_format_holds(format: str, width: int, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=str(width)):
        codecs.write(Image(np.zeros((1, width, 3), np.float32), Transfer.SRGB), tmp_path / "x", format)


FOREIGN = {
    "film.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100),
    "paper.pdf": b"%PDF-1.7\n" + bytes(100),
    "note.txt": b"this is a note, not a picture\n",
    "page.html": b"<!doctype html><html></html>",
    "noise.jpg": np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes(),
    "short.png": b"\x89PN",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files(name: str) -> None:
    with pytest.raises(ReadError) as caught:
        codecs.read(FOREIGN[name], name=name)
    assert caught.value.message == f"{name} is not a picture hdr can read"
    assert caught.value.hint == "formats: jpg, png, tif, webp, avif, jxl, heic, bmp, exr, hdr"


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"empty\.jpg is empty"):
        codecs.read(b"", name="empty.jpg")
    with pytest.raises(ReadError, match=r"gone\.jpg does not exist"):
        codecs.read(tmp_path / "gone.jpg")
    with pytest.raises(ReadError):
        codecs.read(tmp_path)


def test_raw_files_are_sent_to_develop() -> None:
    samples = np.zeros((16, 16), np.uint16)
    sensor = make.tiff(samples, 32803)
    preview = make.tiff(samples.astype(np.uint8), 1, t254=(1,), t330=(8,))
    heads = (
        b"II*\0\x10\0\0\0CR\x02\0",
        b"FUJIFILMCCD-RAW 0201",
        b"\0\0\0\x18ftypcrx ",
        b"IIRO\x08\0\0\0",
        b"IIU\0\x18\0\0\0",
    )
    for data in (sensor, preview, *(head.ljust(64, b"\0") for head in heads)):
        with pytest.raises(ReadError) as caught:
            codecs.read(data, name="photo")
        assert caught.value.hint == "use hdr develop", data[:16]
    with pytest.raises(ReadError) as caught:
        codecs.read(b"what is this", name="photo.NEF")
    assert "hdr develop" in caught.value.hint


@pytest.mark.shared_data
def test_real_raw_files_are_sent_to_develop(shared_data: Path) -> None:
    for name in ("sample_1mp.dng", "sample_384ec9.nef", "S40_CRW_0117.CRW", "DC120_P003910.KDC"):
        with pytest.raises(ReadError) as caught:
            codecs.read(shared_data / "raw" / name)
        assert caught.value.hint == "use hdr develop", name


@pytest.mark.shared_data
def test_real_jpegs_keep_their_exif(shared_data: Path) -> None:
    image = codecs.read(shared_data / "raw" / "S40_CRW_0117.CRW.jpg")
    assert image.pixels.shape == (480, 640, 3)
    assert b"PowerShot S40" in image.meta.exif


def test_pictures_that_claim_to_be_gigantic() -> None:
    huge = 70_000
    header = make.chunk(b"IHDR", huge.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]))
    png = b"\x89PNG\r\n\x1a\n" + header + make.chunk(b"IDAT", b"") + make.chunk(b"IEND", b"")
    radiance = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {huge} +X {huge}\n".encode() + bytes(100)
    tiff = make.tiff(np.zeros((2, 2, 3), np.uint8), 2, t256=(huge,), t257=(huge,))
    for data in (png, radiance, tiff):
        with pytest.raises(ReadError, match="more than the 1,000,000,000"):
            codecs.read(data, name="bomb")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small file of each kind that a decoder of its own reads."""
    folder = tmp_path_factory.mktemp("samples")
    made = {name: written(folder, name, scene()).read_bytes() for name in WRITABLE}
    byte = np.rint(scene() * 255).astype(np.uint8)
    palette = np.arange(256).repeat(3).astype(np.uint16) * 257
    made |= {
        "bmp": cv2.imencode(".bmp", byte)[1].tobytes(),
        "16-bit png": make.png(byte.astype(np.uint16) * 257, make.RGB, 16),
        "16-bit tif": make.tiff(byte.astype(np.uint16) * 257, 2),
        "float tif": make.tiff(scene(), 2),
        "planar tif": make.tiff(byte, 2, planar=2),
        "palette tif": make.tiff(byte[..., 0], 3, t320=tuple(int(n) for n in palette)),
        "lzw palette tif": make.saved(Pillow.fromarray(byte).convert("P"), "TIFF", compression="tiff_lzw"),
        "32-bit exr": written(
            folder, "exr", scene(), options=WriteOptions(half=False, compression="none")
        ).read_bytes(),
        "piz exr": written(folder, "exr", scene(), options=WriteOptions(compression="piz")).read_bytes(),
    }
    return made


KINDS = [
    *WRITABLE,
    "bmp",
    "16-bit png",
    "16-bit tif",
    "float tif",
    "planar tif",
    "palette tif",
    "lzw palette tif",
    "32-bit exr",
    "piz exr",
]


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_end_early_are_errors_and_nothing_is_printed(
    kind: str, samples: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    data = samples[kind]
    codecs.read(data)
    for share in (0.02, 0.2, 0.5, 0.8, 0.95):
        with pytest.raises(ReadError) as caught:
            codecs.read(data[: max(2, int(len(data) * share))], name="cut.file")
        assert "cut.file" in caught.value.message and caught.value.hint and "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_a_picture_or_an_error_and_nothing_is_printed(
    kind: str, samples: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(7)
    data = samples[kind]
    for _ in range(25):
        damaged = bytearray(data)
        for place in rng.integers(0, rng.choice([len(data), min(len(data), 300)]), 4):
            damaged[place] = rng.integers(256)
        try:
            image = codecs.read(bytes(damaged), name="damaged.file")
        except HdrError as error:
            assert isinstance(error, ReadError)
        else:
            assert np.isfinite(image.pixels).all()
    assert capfd.readouterr() == ("", "")


def test_what_others_print_meanwhile_arrives(capfd: pytest.CaptureFixture[str], samples: dict[str, bytes]) -> None:
    def other() -> None:
        os.write(2, b"progress 50 %\n")
        print("data")

    with libraries_silent():
        os.write(2, b"tempfile.tif: (EXR_ERR_BAD) as libraries write\n")
        print("as OpenEXR prints")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert capfd.readouterr() == ("data\n", "progress 50 %\n")


def test_metadata_is_only_written_when_wanted(tmp_path: Path) -> None:
    meta = Metadata(extra={"model": "secret"})
    for format in WRITABLE:
        image = Image(scene(), FORMATS[format].holds, meta=meta)
        path = tmp_path / f"x.{format}"
        codecs.write(image, path, format, WriteOptions(metadata=False))
        data = path.read_bytes()
        assert b"hdr 0." not in data and b"secret" not in data, format
        codecs.write(image, path, format)
        assert b"hdr 0." in path.read_bytes(), format
