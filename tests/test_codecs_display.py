"""What files of finished pictures say about their pixels: colour, depth, alpha, layout."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import picture_files as make
import pytest
from picture_files import by_pillow, same, saved
from PIL import ExifTags
from PIL import Image as Pillow

from hdrcli import codecs, icc
from hdrcli.color import ADOBE_RGB, BT709, BT2020, DISPLAY_P3, Primaries, rgb_to_rgb, srgb_decode, srgb_encode
from hdrcli.errors import ReadError
from hdrcli.image import Image, Transfer

ALPHA = "alpha channel dropped"
P3 = make.icc_rgb("Display P3", make.P3_COLUMNS, make.SRGB_CURVE)
ADOBE = make.icc_rgb("Adobe RGB (1998)", make.ADOBE_COLUMNS, make.gamma_curve(563 / 256))
CHRM_2020 = struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600)
RNG = np.random.default_rng(11)
NOISE = RNG.integers(0, 256, (9, 13, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (9, 13, 3)).astype(np.uint16)


def srgb_of(values: np.ndarray, primaries: Primaries, decode=srgb_decode) -> np.ndarray:
    linear = decode(values.astype(np.float64)) @ rgb_to_rgb(primaries, BT709).T
    return srgb_encode(np.clip(linear, 0, 1).astype(np.float32))


# ---------------------------------------------------------------- colour


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_wide_gamut_profiles_are_converted(format: str) -> None:
    smooth = cv2.resize(NOISE[:3, :3], (24, 24), interpolation=cv2.INTER_LINEAR)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    data = saved(smooth, format, icc_profile=P3, **options)
    image = codecs.read(data)
    assert image.meta.profile == "Display P3"
    assert image.primaries == BT709 and image.transfer == Transfer.SRGB
    decoded = np.asarray(Pillow.open(io.BytesIO(data))) / 255
    same(image, srgb_of(decoded, DISPLAY_P3), atol=3e-3)
    assert any("outside the sRGB gamut" in note for note in image.meta.notes)


@pytest.mark.parametrize("container", ["png", "tif"])
def test_sixteen_bits_with_a_profile_keep_their_depth(container: str) -> None:
    muted = DEEP // 2 + 16384  # inside sRGB's gamut
    profile = {"iCCP": make.iccp(ADOBE)} if container == "png" else {"t34675": ADOBE}
    data = make.png(muted, make.RGB, 16, **profile) if container == "png" else make.tiff(muted, 2, **profile)
    image = codecs.read(data)
    expected = srgb_of(muted / 65535, ADOBE_RGB, lambda x: x ** (563 / 256))
    same(image, expected, atol=3e-4)
    assert image.meta.bits == 16 and image.meta.profile == "Adobe RGB (1998)"
    assert len(np.unique(image.pixels)) > 0.9 * muted.size


def test_srgb_profiles_change_nothing() -> None:
    for profile in (icc.srgb_profile(), make.icc_rgb("sRGB", make.SRGB_COLUMNS, make.SRGB_CURVE)):
        image = codecs.read(saved(NOISE, "PNG", icc_profile=profile))
        same(image, NOISE / 255, atol=1e-7)
        assert image.meta.notes == () and image.meta.profile.startswith("sRGB")


def test_adobe_rgb_of_cameras_that_embed_no_profile() -> None:
    block = make.exif({}, {ExifTags.IFD.Exif: {ExifTags.IFD.Interop: (make.LONG, (44,))}})
    assert len(block) == 44
    interoperability = struct.pack("<HHHI4s", 1, 1, 2, 4, b"R03\0") + bytes(4)
    image = codecs.read(saved(NOISE, "PNG", exif=block + interoperability))
    same(image, srgb_of(NOISE / 255, ADOBE_RGB, lambda x: x ** (563 / 256)), atol=1e-3)
    assert image.meta.profile == "Adobe RGB (1998)"


def test_grey_profiles() -> None:
    profile = make.icc_grey("dot gain", make.gamma_curve(1.75))
    image = codecs.read(saved(NOISE[..., 0], "PNG", icc_profile=profile))
    same(image, srgb_encode((NOISE[..., 0] / 255) ** 1.75), atol=2e-3)
    on_colour = codecs.read(saved(NOISE, "PNG", icc_profile=profile))
    same(on_colour, NOISE / 255)
    assert "is for GRAY and was ignored" in on_colour.meta.notes[0]


def test_grey_pixels_under_an_rgb_profile() -> None:
    image = codecs.read(saved(NOISE[..., 0], "JPEG", quality=100, icc_profile=ADOBE))
    assert np.ptp(image.pixels, axis=-1).max() < 1e-3
    decoded = np.asarray(Pillow.open(io.BytesIO(saved(NOISE[..., 0], "JPEG", quality=100)))) / 255
    same(image, srgb_encode(decoded ** (563 / 256)), atol=2e-3)


@pytest.mark.parametrize("profile", [P3[:300], b"not a profile at all" * 20], ids=["cut", "nonsense"])
def test_damaged_profiles_are_said_and_taken_for_srgb(profile: bytes) -> None:
    image = codecs.read(saved(NOISE, "PNG", icc_profile=profile))
    same(image, NOISE / 255)
    assert "taken for sRGB" in image.meta.notes[0]


def cube_of_lab() -> np.ndarray:
    """Corners of RGB as L* alone, so that colours become greys that are easily told."""
    corners = np.zeros((2, 2, 2, 3))
    for r, g, b in np.ndindex(2, 2, 2):
        corners[r, g, b, 0] = 20 * r + 50 * g + 30 * b
    return corners


def test_table_profiles() -> None:
    profile = make.icc_tables(b"RGB ", cube_of_lab())
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[:2, :, 1] = 255
    colours[2:] = 255
    expected = srgb_encode(np.where(colours[..., 0] == 255, 1, ((50 + 16) / 116) ** 3).astype(np.float32))
    eight = codecs.read(saved(colours, "PNG", icc_profile=profile))
    same(eight, expected, atol=0.01)
    sixteen = codecs.read(make.png(colours.astype(np.uint16) * 257, make.RGB, 16, iCCP=make.iccp(profile)))
    same(sixteen, expected, atol=0.01)
    assert "8 bits per channel" in sixteen.meta.notes[0] and not eight.meta.notes


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(format: str) -> None:
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:, 8:16, 0], ink[:, 16:24, 3], ink[:, 24:, 1] = 255, 255, 128
    picture = Pillow.frombuffer("CMYK", (32, 16), ink.tobytes())
    image = codecs.read(saved(picture, format, **({"quality": 100} if format == "JPEG" else {})))
    found = [image.pixels[8, x].tolist() for x in (4, 12, 20, 28)]
    np.testing.assert_allclose(found, [(1, 1, 1), (0, 1, 1), (0, 0, 0), (1, 127 / 255, 1)], atol=0.02)
    assert "approximate" in image.meta.notes[0]


def test_cmyk_with_a_profile() -> None:
    corners = np.zeros((2, 2, 2, 2, 3))
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        corners[c, m, y, k, 0] = 100 * (1 - k) * (1 - 0.3 * c - 0.3 * m - 0.2 * y)
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:, 16:, 0] = 255
    picture = Pillow.frombuffer("CMYK", (32, 16), ink.tobytes())
    image = codecs.read(saved(picture, "JPEG", quality=100, icc_profile=make.icc_tables(b"CMYK", corners)))
    grey = float(srgb_encode(np.float32(((70 + 16) / 116) ** 3)))
    np.testing.assert_allclose(image.pixels[8, [4, 28]], [[1] * 3, [grey] * 3], atol=0.02)
    assert image.meta.notes == () and image.meta.profile == "tables"


def test_ycck_as_photoshop_writes_it() -> None:
    """Adobe's marker says transform 2: cyan, magenta and yellow as YCbCr; and the file holds white minus ink."""
    cyan, magenta, yellow, black = 200, 40, 90, 30
    ycc = np.asarray(Pillow.fromarray(np.full((16, 16, 3), (cyan, magenta, yellow), np.uint8)).convert("YCbCr"))
    stored = np.dstack([ycc, np.full((16, 16), 255 - black, np.uint8)])
    cmyk = saved(Pillow.frombuffer("CMYK", (16, 16), (255 - stored).tobytes()), "JPEG", quality=100)  # which inverts
    transform = cmyk.index(b"Adobe") + 11
    image = codecs.read(cmyk[:transform] + b"\x02" + cmyk[transform + 1 :])
    paper = 1 - np.array([cyan, magenta, yellow]) / 255
    np.testing.assert_allclose(image.pixels[8, 8], paper * (1 - black / 255), atol=0.02)


@pytest.mark.parametrize(("chunks", "primaries", "decode"), [
    ({"gAMA": struct.pack(">I", 100_000)}, BT709, lambda x: x),
    ({"gAMA": struct.pack(">I", 55_556)}, BT709, lambda x: x**1.8),
    ({"gAMA": struct.pack(">I", 45_455), "cHRM": CHRM_2020}, BT2020, lambda x: x**2.2),
    ({"cICP": bytes([12, 13, 0, 1])}, DISPLAY_P3, srgb_decode),
    ({"cICP": bytes([9, 8, 0, 1]), "sRGB": b"\0"}, BT2020, lambda x: x),
    ({"gAMA": struct.pack(">I", 45_455)}, BT709, srgb_decode),
    ({"gAMA": struct.pack(">I", 100_000), "sRGB": b"\0"}, BT709, srgb_decode),
    ({"gAMA": struct.pack(">I", 0)}, BT709, srgb_decode),
    ({"gAMA": struct.pack(">I", 45_455), "cHRM": struct.pack(">8I", *[30000] * 8)}, BT709, srgb_decode),
])  # fmt: skip
@pytest.mark.parametrize("bits", [8, 16])
def test_png_colour_chunks(chunks: dict[str, bytes], primaries: Primaries, decode, bits: int) -> None:
    image = codecs.read(make.png(DEEP if bits == 16 else NOISE, make.RGB, bits, **chunks))
    values = DEEP / 65535 if bits == 16 else NOISE / 255
    same(image, srgb_of(values, primaries, decode), atol=1e-3)


@pytest.mark.parametrize(("bits", "code"), [(16, 18), (8, 16), (8, 18)], ids=["HLG", "8-bit PQ", "8-bit HLG"])
def test_hdr_png_of_other_kinds_is_refused_not_misread(bits: int, code: int) -> None:
    with pytest.raises(ReadError, match="cICP"):
        codecs.read(
            make.png(DEEP if bits == 16 else NOISE, make.RGB, bits, cICP=bytes([9, code, 0, 1])), name="hdr.png"
        )


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tif"])
def test_written_files_say_that_they_are_srgb(format: str, tmp_path: Path) -> None:
    codecs.write(Image(np.zeros((2, 3, 3), np.float32), Transfer.SRGB), tmp_path / "x", format)
    info = by_pillow(tmp_path / "x").info
    assert info.get("srgb") == 0 if format == "png" else info["icc_profile"] == icc.srgb_profile()


# ---------------------------------------------------------------- kinds of pixels


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_grey(bits: int) -> None:
    values = RNG.integers(0, 2**bits, (9, 13)).astype(np.uint16)
    image = codecs.read(make.png(values, make.GREY, bits))
    same(image, values / (2**bits - 1))
    assert image.meta.bits == bits and image.meta.notes == ()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [make.GREY_ALPHA, make.RGBA])
def test_png_alpha_is_dropped_and_colours_stay(bits: int, colour: int) -> None:
    channels = 2 if colour == make.GREY_ALPHA else 4
    values = RNG.integers(0, 2**bits, (9, 13, channels)).astype(np.uint16)
    values[0, 0, -1] = 0
    image = codecs.read(make.png(values, colour, bits))
    same(image, (values[..., 0] if channels == 2 else values[..., :3]) / (2**bits - 1))
    assert image.meta.notes == (ALPHA,)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_png_palette(bits: int, transparent: bool) -> None:
    palette = RNG.integers(0, 256, (2**bits, 3), np.uint8)
    values = RNG.integers(0, 2**bits, (9, 13), np.uint8)
    more = {"tRNS": b"\x40\x80"} if transparent else {}
    image = codecs.read(make.png(values, make.PALETTE, bits, PLTE=palette.tobytes(), **more))
    same(image, palette[values] / 255)
    assert image.meta.notes == ((ALPHA,) if transparent else ())


def test_png_sixteen_bits_keep_every_level() -> None:
    ramp = np.arange(65536).reshape(256, 256).astype(np.uint16)
    image = codecs.read(make.png(ramp, make.GREY, 16))
    np.testing.assert_array_equal(np.rint(image.pixels[..., 0] * 65535), ramp)


def test_jpeg_grey_progressive_and_subsampled() -> None:
    smooth = cv2.resize(NOISE[:3, :3], (40, 30), interpolation=cv2.INTER_LINEAR)
    encodings = {"grey": smooth[..., 0], "colour": smooth}
    for kind, pixels in encodings.items():
        for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111]):
            data = cv2.imencode(".jpg", pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)[1]
            expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1] / 255
            same(codecs.read(data.tobytes()), expected, atol=3 / 255)
            assert codecs.read(data.tobytes()).meta.bits == 8, kind


def test_written_jpeg_has_full_chroma(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.float32)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 1, 1
    codecs.write(Image(stripes, Transfer.SRGB), tmp_path / "x", "jpg")
    found = cv2.imread(str(tmp_path / "x"))[..., ::-1] / 255
    assert np.abs(found - stripes).mean() < 0.02, "red and blue columns ran into each other"


def test_webp_alpha_and_animation() -> None:
    rgba = np.dstack([NOISE, NOISE[..., :1] | 1])
    image = codecs.read(saved(rgba, "WEBP", lossless=True, exact=True))
    same(image, NOISE / 255)
    assert image.meta.notes == (ALPHA,)
    frames = [Pillow.fromarray(NOISE), Pillow.fromarray(255 - NOISE)]
    first = codecs.read(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    same(first, NOISE / 255)
    assert "only the first" in first.meta.notes[0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp(mode: str) -> None:
    picture = Pillow.fromarray(NOISE).convert(mode)
    same(codecs.read(saved(picture, "BMP")), np.asarray(picture.convert("RGB")) / 255)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 3), (9, 13, 4)])
def test_tiff_integers(shape: tuple[int, ...], dtype: type, order: str) -> None:
    most = np.iinfo(dtype).max
    values = RNG.integers(0, most, shape, dtype, endpoint=True)
    more = {"t338": (2,)} if shape[-1] == 4 else {}
    image = codecs.read(make.tiff(values, 2 if len(shape) == 3 else 1, order=order, **more))
    same(image, (values if len(shape) == 2 else values[..., :3]) / most)
    assert image.meta.bits == np.dtype(dtype).itemsize * 8
    assert image.meta.notes == ((ALPHA,) if more else ())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_where_white_is_zero(dtype: type) -> None:
    most = np.iinfo(dtype).max
    values = RNG.integers(0, most, (9, 13), dtype)
    same(codecs.read(make.tiff(values, 0)), 1 - values / most)


def test_tiff_premultiplied_alpha_is_divided_out() -> None:
    alpha = RNG.integers(10_000, 65536, (9, 13, 1)).astype(np.uint16)
    stored = np.rint(DEEP * (alpha / 65535)).astype(np.uint16)
    image = codecs.read(make.tiff(np.dstack([stored, alpha]), 2, t338=(1,)))
    same(image, DEEP / 65535, atol=1e-4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_kinds_of_eight_bits(mode: str, compression: str | None) -> None:
    picture = Pillow.fromarray(NOISE).convert(mode)
    image = codecs.read(saved(picture, "TIFF", compression=compression))
    expected = np.asarray(picture.convert("RGB")) / 255
    same(image, expected, atol=1 / 255)


def test_tiff_compressed_as_jpeg() -> None:
    smooth = cv2.resize(NOISE[:3, :3], (40, 30), interpolation=cv2.INTER_LINEAR)
    image = codecs.read(saved(smooth, "TIFF", compression="jpeg", quality=95))
    same(image, smooth / 255, atol=0.06)


def test_tiff_planes_apart() -> None:
    same(codecs.read(make.tiff(NOISE, 2, planar=2)), NOISE / 255)


@pytest.mark.parametrize(
    "name", ["planar 16-bit", "two samples", "signed", "half floats", "five samples", "mixed bits"]
)
def test_tiff_kinds_that_decoders_get_wrong_are_refused(name: str) -> None:
    data = {
        "planar 16-bit": lambda: make.tiff(DEEP, 2, planar=2),
        "two samples": lambda: make.tiff(DEEP[..., :2], 1, t338=(2,)),
        "signed": lambda: make.tiff(DEEP.astype(np.int16), 2),
        "32 bits": lambda: make.tiff(DEEP.astype(np.uint32), 2),
        "half floats": lambda: make.tiff((DEEP / 65535).astype(np.float16), 2),
        "five samples": lambda: make.tiff(np.dstack([DEEP, DEEP[..., :2]]), 2, t338=(0, 0)),
        "mixed bits": lambda: make.tiff(DEEP, 2, t258=(16, 16, 8)),
    }[name]()
    with pytest.raises(ReadError) as caught:
        codecs.read(data, name="odd.tif")
    assert "odd.tif" in caught.value.message and caught.value.hint


def test_bigtiff_is_refused_by_name() -> None:
    with pytest.raises(ReadError, match="BigTIFF"):
        codecs.read(b"II+\0\x08\0\0\0" + bytes(64), name="big.tif")


def test_written_tiff_of_many_strips_is_read_by_others(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (700, 500, 3), np.uint8)
    codecs.write(Image((pixels / 255).astype(np.float32), Transfer.SRGB), tmp_path / "x.tif", "tif")
    np.testing.assert_array_equal(np.asarray(by_pillow(tmp_path / "x.tif")), pixels)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "x.tif"))[..., ::-1], pixels)


def test_a_jpeg_that_libjpeg_can_read_only_in_parts_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ramp = np.linspace(0, 1, 64 * 96 * 3, dtype=np.float32).reshape(64, 96, 3)
    codecs.write(Image(ramp, Transfer.SRGB), tmp_path / "a.jpg", "jpg")
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    assert not codecs.read(bytes(data)).meta.notes
    middle = (data.find(b"\xff\xda") + len(data)) // 2
    data[middle : middle + 40] = bytes(40)
    (note,) = codecs.read(bytes(data)).meta.notes
    assert note.startswith("the file is damaged, and so are parts of the picture (Corrupt JPEG data")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_compressed_tiff_that_is_damaged_is_an_error(tmp_path: Path, kind: type) -> None:
    noise = np.random.default_rng(0).random((64, 96, 3), np.float32)
    linear = kind is np.float32
    options = codecs.WriteOptions(bits=16 if kind is np.uint16 else 8)
    codecs.write(Image(noise, Transfer.LINEAR if linear else Transfer.SRGB), tmp_path / "a.tif", "tif", options)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    codecs.read(bytes(data))
    data[-600:] = np.random.default_rng(1).bytes(600)
    with pytest.raises(ReadError, match="damaged"):
        codecs.read(bytes(data))


def test_tiff_tags_of_odd_kinds_are_no_bug() -> None:
    plain = np.zeros((4, 6, 3), np.uint8)
    image = codecs.read(make.tiff(plain, 2, t34675=(300, 5), t700=(70000,)))  # numbers where there should be bytes
    assert "the ICC profile cannot be used" in image.meta.notes[0]
