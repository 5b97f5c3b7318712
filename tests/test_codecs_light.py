"""Files of light: OpenEXR, Radiance, floating-point TIFF."""

from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import picture_files as make
import pytest

from hdrcli import codecs
from hdrcli.codecs import WriteOptions
from hdrcli.codecs.exr import COMPRESSIONS
from hdrcli.color import BT709, BT2020, DISPLAY_P3, Primaries, rgb_to_rgb, srgb_decode
from hdrcli.errors import ReadError
from hdrcli.image import Image, Metadata, Transfer

RNG = np.random.default_rng(5)
LIGHT = np.exp(RNG.normal(0, 3, (9, 13, 3))).astype(np.float32)
ACES_AP0 = Primaries("ACES AP0", (0.7347, 0.2653), (0.0, 1.0), (0.0001, -0.077), (0.32168, 0.33767))


def linear(pixels: np.ndarray, **more) -> Image:
    return Image(np.asarray(pixels, np.float32), Transfer.LINEAR, **more)


def exr(folder: Path, channels: dict[str, np.ndarray], **header) -> Path:
    path = folder / "made.exr"
    whole = {name: np.ascontiguousarray(pixels) for name, pixels in channels.items()}
    OpenEXR.File({"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION} | header, whole).write(
        str(path)
    )
    return path


def rgb(pixels: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    return {prefix + colour: pixels[..., i] for i, colour in enumerate("RGB")}


def xy(primaries: Primaries) -> tuple[float, ...]:
    return (*primaries.red, *primaries.green, *primaries.blue, *primaries.white)


# ---------------------------------------------------------------- OpenEXR, writing


def test_exr_header_says_what_the_numbers_mean(tmp_path: Path) -> None:
    meta = Metadata(extra={"model": "lumen", "weights": "0123abcd", "gamma": "1.0"})
    codecs.write(linear(LIGHT, white=203.0, meta=meta), tmp_path / "x", "exr")
    part = OpenEXR.File(str(tmp_path / "x")).parts[0]
    header = part.header
    np.testing.assert_allclose(header["chromaticities"], xy(BT709), atol=1e-6)
    assert header["whiteLuminance"] == 203.0
    assert (header["model"], header["weights"], header["gamma"]) == ("lumen", "0123abcd", "1.0")
    assert header["software"].startswith("hdr ")
    assert header["compression"] == OpenEXR.PIZ_COMPRESSION
    assert [channel.name for channel in header["channels"]] == ["B", "G", "R"]
    assert part.channels["RGB"].pixels.dtype == np.float16


def test_exr_without_a_known_white_names_none(tmp_path: Path) -> None:
    codecs.write(linear(LIGHT), tmp_path / "x", "exr", WriteOptions(metadata=False))
    header = OpenEXR.File(str(tmp_path / "x")).header()
    assert "whiteLuminance" not in header and "software" not in header and "chromaticities" in header


def test_exr_of_other_primaries_keeps_them_and_reads_back_as_bt709(tmp_path: Path) -> None:
    codecs.write(linear(LIGHT, primaries=BT2020), tmp_path / "x", "exr", WriteOptions(half=False))
    np.testing.assert_allclose(OpenEXR.File(str(tmp_path / "x")).header()["chromaticities"], xy(BT2020), atol=1e-6)
    image = codecs.read(tmp_path / "x")
    assert image.primaries == BT709
    np.testing.assert_allclose(image.pixels, LIGHT @ rgb_to_rgb(BT2020, BT709).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("half", [True, False])
def test_exr_compressions(compression: str, half: bool, tmp_path: Path) -> None:
    smooth = cv2.resize(LIGHT[:2, :2] + 10, (40, 33), interpolation=cv2.INTER_LINEAR)
    codecs.write(linear(smooth), tmp_path / "x", "exr", WriteOptions(half=half, compression=compression))
    tolerance = {"dwaa": 0.05, "dwab": 0.05, "b44": 0.02, "b44a": 0.02}.get(compression, 2.0**-11)
    exact = not half and compression in ("none", "rle", "zips", "zip", "piz")
    image = codecs.read(tmp_path / "x")
    np.testing.assert_allclose(image.pixels, smooth, rtol=0 if exact else tolerance)
    assert image.meta.bits == (16 if half else 32)
    assert OpenEXR.File(str(tmp_path / "x")).header()["compression"] == COMPRESSIONS[compression]


def test_exr_values_beyond_half_are_clipped_and_counted(tmp_path: Path) -> None:
    light = np.ones((4, 4, 3), np.float32)
    light[0, 0] = (70_000, 1e9, np.inf)
    light[1, 1] = (-70_000, np.nan, 65_504)
    notes = codecs.write(linear(light), tmp_path / "x", "exr")
    assert notes == [
        "1 values below -65504 clipped",
        "3 values above 65504 clipped",
        "1 values that are not numbers written as 0",
    ]
    stored = codecs.read(tmp_path / "x").pixels
    np.testing.assert_array_equal(stored[0, 0], 65504)
    np.testing.assert_array_equal(stored[1, 1], (-65504, 0, 65504))
    light[0, 0], light[1, 1] = (65_519, 1e9, 1e30), -1.0
    assert codecs.write(linear(light), tmp_path / "x", "exr", WriteOptions(half=False)) == []
    np.testing.assert_array_equal(codecs.read(tmp_path / "x").pixels, light)


def test_exr_pixels_that_are_a_view_of_others(tmp_path: Path) -> None:
    """OpenEXR's module reads through views as if they were whole."""
    views = LIGHT[:, ::-1], LIGHT[::2], LIGHT.swapaxes(0, 1), LIGHT[..., ::-1]
    for view in views:
        codecs.write(linear(view), tmp_path / "x", "exr", WriteOptions(half=False))
        np.testing.assert_array_equal(codecs.read(tmp_path / "x").pixels, view)


# ---------------------------------------------------------------- OpenEXR, reading


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exr_rgb_and_rgba(dtype: type, tmp_path: Path) -> None:
    pixels = LIGHT.astype(dtype)
    image = codecs.read(exr(tmp_path, rgb(pixels)))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert (image.transfer, image.primaries, image.white) == (Transfer.LINEAR, BT709, None)
    assert image.meta.notes == () and image.meta.bits == np.dtype(dtype).itemsize * 8
    with_alpha = codecs.read(exr(tmp_path, rgb(pixels) | {"A": pixels[..., 0], "Z": pixels[..., 1]}))
    np.testing.assert_array_equal(with_alpha.pixels, pixels)
    assert with_alpha.meta.notes == ("alpha channel dropped",)


@pytest.mark.parametrize("primaries", [DISPLAY_P3, BT2020, ACES_AP0], ids=lambda p: p.name)
def test_exr_chromaticities_are_converted(primaries: Primaries, tmp_path: Path) -> None:
    image = codecs.read(exr(tmp_path, rgb(LIGHT), chromaticities=xy(primaries), whiteLuminance=100.0))
    np.testing.assert_allclose(image.pixels, LIGHT @ rgb_to_rgb(primaries, BT709).T, rtol=1e-3, atol=1e-3)
    assert (image.primaries, image.white) == (BT709, 100.0)


def test_exr_chromaticities_that_make_no_sense_are_bt709(tmp_path: Path) -> None:
    for values in ((0.3,) * 8, (0.0,) * 8, (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.0)):
        np.testing.assert_array_equal(codecs.read(exr(tmp_path, rgb(LIGHT), chromaticities=values)).pixels, LIGHT)


def test_exr_luminance_alone_is_grey(tmp_path: Path) -> None:
    image = codecs.read(exr(tmp_path, {"Y": LIGHT[..., 0]}))
    np.testing.assert_array_equal(image.pixels, np.repeat(LIGHT[..., :1], 3, axis=-1))


def test_exr_layers(tmp_path: Path) -> None:
    one, two, three = LIGHT, LIGHT * 2, LIGHT * 3
    layers = rgb(one, "View.AO.") | rgb(two, "View.Combined.") | rgb(three, "View.Diffuse.")
    image = codecs.read(exr(tmp_path, layers))
    np.testing.assert_array_equal(image.pixels, two)
    assert image.meta.notes == ("layer 'View.Combined' was read",)
    np.testing.assert_array_equal(codecs.read(exr(tmp_path, layers | rgb(one))).pixels, one)
    np.testing.assert_array_equal(codecs.read(exr(tmp_path, rgb(one, "b.") | rgb(two, "a."))).pixels, two)
    small = {"left.r": one[..., 0], "left.g": one[..., 1], "left.b": one[..., 2]}
    np.testing.assert_array_equal(codecs.read(exr(tmp_path, small)).pixels, one)


def test_exr_parts(tmp_path: Path) -> None:
    header = {"type": OpenEXR.scanlineimage}
    depth = OpenEXR.Part(header | {"name": "depth"}, {"Z": LIGHT[..., 0].copy()})
    beauty = OpenEXR.Part(header | {"name": "beauty"}, {"RGBA": np.dstack([LIGHT, LIGHT[..., :1]])})
    OpenEXR.File([depth, beauty]).write(str(tmp_path / "x"))
    np.testing.assert_array_equal(codecs.read(tmp_path / "x").pixels, LIGHT)


def test_exr_tiles(tmp_path: Path) -> None:
    tiled = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    np.testing.assert_array_equal(codecs.read(exr(tmp_path, rgb(LIGHT), **tiled)).pixels, LIGHT)


def test_exr_data_window(tmp_path: Path) -> None:
    inside = np.array([2, 1], np.int32), np.array([14, 9], np.int32)
    frame = np.array([0, 0], np.int32), np.array([19, 19], np.int32)
    image = codecs.read(exr(tmp_path, rgb(LIGHT), dataWindow=inside, displayWindow=frame))
    np.testing.assert_array_equal(image.pixels, LIGHT)
    assert "data window" in image.meta.notes[0]


@pytest.mark.parametrize("channels", [("Z",), ("R", "G"), ("normal.X", "normal.Y")])
def test_exr_without_colours_is_an_error(channels: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ReadError) as caught:
        codecs.read(exr(tmp_path, dict.fromkeys(channels, LIGHT[..., 0])))
    assert all(channel in caught.value.message for channel in channels)


def test_exr_luminance_and_chroma_is_refused_not_read_as_grey(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="chroma"):
        codecs.read(exr(tmp_path, dict.fromkeys(("Y", "RY", "BY"), LIGHT[..., 0])))


def test_exr_numbers_that_are_not_finite_are_replaced_and_counted(tmp_path: Path) -> None:
    pixels = LIGHT.astype(np.float16)
    pixels[0, 0] = (np.inf, np.nan, -np.inf)
    image = codecs.read(exr(tmp_path, rgb(pixels)))
    assert image.pixels[0, 0].tolist() == [65504, 0, 0]
    assert image.meta.notes == ("3 values that are not finite numbers replaced",)


def test_exr_negative_light_is_kept(tmp_path: Path) -> None:
    np.testing.assert_array_equal(codecs.read(exr(tmp_path, rgb(-LIGHT))).pixels, -LIGHT)


def test_exr_attributes_of_text_come_back(tmp_path: Path) -> None:
    image = codecs.read(exr(tmp_path, rgb(LIGHT), model="lumen", comments="günstig"))
    assert image.meta.extra == {"model": "lumen", "comments": "günstig"}


def test_exr_damage_inside_compressed_data_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(exr(tmp_path, rgb(cv2.resize(LIGHT, (130, 90)))).read_bytes())
    data[-2000:-1900] = bytes(100)
    with pytest.raises(ReadError, match=r"bad\.exr is damaged"):
        codecs.read(bytes(data), name="bad.exr")
    assert capfd.readouterr() == ("", "")


@pytest.mark.shared_data
def test_real_exr_files(shared_data: Path) -> None:
    for path in sorted((shared_data / "hdr" / "train").glob("*.exr"))[:12]:
        image = codecs.read(path)
        assert image.transfer == Transfer.LINEAR and image.pixels.max() > 0, path.name


# ---------------------------------------------------------------- Radiance


def mantissas(height: int = 6, width: int = 9) -> np.ndarray:
    pixels = RNG.integers(0, 256, (height, width, 4), np.uint8)
    pixels[..., 3] = RNG.integers(110, 150, (height, width))
    return pixels


def light_of(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :3] * 2.0 ** (pixels[..., 3:].astype(float) - 136)


def test_hdr_values() -> None:
    pixels = mantissas()
    pixels[0, 0] = 0
    image = codecs.read(make.rgbe(pixels))
    np.testing.assert_allclose(image.pixels, light_of(pixels), rtol=1e-6)
    assert image.transfer == Transfer.LINEAR


@pytest.mark.parametrize(("line", "turned"), [
    ("-Y 6 +X 9", lambda p: p),
    ("+Y 6 +X 9", lambda p: p[::-1]),
    ("-Y 6 -X 9", lambda p: p[:, ::-1]),
    ("+Y 6 -X 9", lambda p: p[::-1, ::-1]),
    ("+X 6 -Y 9", lambda p: p.swapaxes(0, 1)),
    ("-X 6 -Y 9", lambda p: p[::-1].swapaxes(0, 1)),
    ("+X 6 +Y 9", lambda p: p[:, ::-1].swapaxes(0, 1)),
    ("-X 6 +Y 9", lambda p: p[::-1, ::-1].swapaxes(0, 1)),
])  # fmt: skip
def test_hdr_orientations(line: str, turned) -> None:
    pixels = mantissas()
    np.testing.assert_allclose(codecs.read(make.rgbe(pixels, line)).pixels, turned(light_of(pixels)), rtol=1e-6)


def test_hdr_primaries() -> None:
    pixels = mantissas()
    header = "EXPOSURE=2.0\nPRIMARIES= 0.708 0.292 .170 0.797 0.131 0.046 0.3127 0.3290\n"
    expected = light_of(pixels) @ rgb_to_rgb(BT2020, BT709).T
    np.testing.assert_allclose(codecs.read(make.rgbe(pixels, header=header)).pixels, expected, rtol=1e-3, atol=1e-3)
    broken = "PRIMARIES=0 0 0 0 0 0 0 0\n"
    np.testing.assert_allclose(codecs.read(make.rgbe(pixels, header=broken)).pixels, light_of(pixels), rtol=1e-6)


def test_hdr_written_is_read_by_opencv_and_rounded_to_nearest(tmp_path: Path) -> None:
    light = np.exp(RNG.normal(0, 8, (40, 50, 3))).astype(np.float32)
    assert codecs.write(linear(light), tmp_path / "x.hdr", "hdr") == []
    found = cv2.imread(str(tmp_path / "x.hdr"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    largest = light.max(axis=-1, keepdims=True)
    step = 2.0 ** (np.frexp(largest)[1] - 8)
    error = (found - light) / step
    assert np.abs(error).max() <= 1.001, "a mantissa of 256 doubles the step, which may add half of one"
    assert np.quantile(np.abs(error), 0.99) <= 0.501
    assert abs(error.mean()) < 0.01, "cutting off instead of rounding would make everything darker"


def test_hdr_negative_light_becomes_black_not_white(tmp_path: Path) -> None:
    light = np.full((3, 8, 3), 0.5, np.float32)
    light[0, 0] = (-0.01, 0.5, -3.0)
    light[1, 1] = -0.01
    light[2, 2] = (np.nan, 1.0, np.inf)
    notes = codecs.write(linear(light), tmp_path / "x", "hdr")
    assert notes == [
        "5 negative values clipped to 0",
        "1 values above 1.69477e+38 clipped",
        "1 values that are not numbers written as 0",
    ]
    found = codecs.read(tmp_path / "x").pixels
    np.testing.assert_allclose(found[0, 0], (0, 0.5, 0), atol=1e-3)
    np.testing.assert_array_equal(found[1, 1], 0)
    np.testing.assert_allclose(found[0, 1], 0.5, rtol=1e-3)


def test_hdr_carries_provenance(tmp_path: Path) -> None:
    meta = Metadata(extra={"model": "lumen\nFORMAT=evil"})
    codecs.write(linear(np.ones((2, 9, 3)), meta=meta), tmp_path / "x", "hdr")
    header = (tmp_path / "x").read_bytes().split(b"\n\n")[0].decode().splitlines()
    assert header[0] == "#?RADIANCE" and header[-1] == "FORMAT=32-bit_rle_rgbe"
    assert "model=lumen FORMAT=evil" in header
    np.testing.assert_allclose(codecs.read(tmp_path / "x").pixels, 1)


@pytest.mark.parametrize("data", [b"#?RADIANCE\n\n", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 6 +Y 9\n" + bytes(300)])
def test_hdr_headers_without_a_size(data: bytes) -> None:
    with pytest.raises(ReadError, match="size"):
        codecs.read(data, name="x.hdr")


def test_hdr_of_xyz_is_refused_not_taken_for_rgb() -> None:
    data = make.rgbe(mantissas()).replace(b"32-bit_rle_rgbe", b"32-bit_rle_xyze")
    with pytest.raises(ReadError, match="XYZ"):
        codecs.read(data)


# ---------------------------------------------------------------- floating-point TIFF


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_float_tiff_is_linear(channels: int, dtype: type, order: str) -> None:
    values = {1: LIGHT[..., 0], 3: LIGHT, 4: np.dstack([LIGHT, LIGHT[..., :1]])}[channels].astype(dtype)
    more = {"t338": (2,)} if channels == 4 else {}
    image = codecs.read(make.tiff(values, 1 if channels == 1 else 2, order=order, **more))
    expected = np.repeat(LIGHT[..., :1], 3, axis=-1) if channels == 1 else LIGHT
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.transfer == Transfer.LINEAR
    assert any("taken for linear" in note for note in image.meta.notes)


def test_float_tiff_follows_its_profile() -> None:
    encoded = RNG.random((9, 13, 3)).astype(np.float32)
    profile = make.icc_rgb("Display P3", make.P3_COLUMNS, make.SRGB_CURVE)
    image = codecs.read(make.tiff(encoded, 2, t34675=profile))
    expected = srgb_decode(encoded) @ rgb_to_rgb(DISPLAY_P3, BT709).T
    np.testing.assert_allclose(image.pixels, expected, atol=5e-4)
    assert (image.meta.profile, image.meta.notes) == ("Display P3", ())
    above = codecs.read(make.tiff(LIGHT, 2, t34675=make.icc_rgb("linear", make.SRGB_COLUMNS, make.gamma_curve(1.0))))
    np.testing.assert_allclose(above.pixels, LIGHT, rtol=2e-3, atol=LIGHT.max() * 3e-4)


def test_float_tiff_numbers_too_large_for_single_floats_are_counted() -> None:
    values = LIGHT.astype(np.float64)
    values[0, 0, 0] = 1e300
    image = codecs.read(make.tiff(values, 2))
    assert np.isfinite(image.pixels).all()
    assert "1 values that are not finite numbers replaced" in image.meta.notes
