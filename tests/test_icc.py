import io

import numpy as np
import picture_files as make
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from hdrcli import icc
from hdrcli.color import ADOBE_RGB, BT709, DISPLAY_P3, rgb_to_rgb, srgb_decode, srgb_encode, to_float

P3 = make.icc_rgb("Display P3", make.P3_COLUMNS, make.SRGB_CURVE)
ADOBE = make.icc_rgb("Adobe RGB (1998)", make.ADOBE_COLUMNS, make.gamma_curve(563 / 256))
ROMM_LIKE = make.icc_rgb("table", make.ADOBE_COLUMNS, make.table_curve(np.linspace(0, 1, 1024) ** 1.8))


def by_littlecms(profile: bytes, values: np.ndarray, mode: str) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    made = ImageCms.profileToProfile(
        Pillow.fromarray(values),
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert made is not None
    return np.asarray(made)


@pytest.mark.parametrize("data", [P3, ADOBE, ROMM_LIKE], ids=["p3", "adobe", "table"])
def test_matrix_profiles_agree_with_littlecms(data: bytes) -> None:
    values = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    ours, _ = icc.parse(data).srgb(values)
    difference = np.abs(to_float(ours) * 255 - by_littlecms(data, values, "RGB"))
    assert difference.max() < 1.6, f"largest difference {difference.max():.2f} of 255"
    assert difference.mean() < 0.35, "LittleCMS rounds to whole numbers, which alone makes 0.25"


@pytest.mark.parametrize(("data", "primaries", "decode"), [
    (P3, DISPLAY_P3, srgb_decode),
    (ADOBE, ADOBE_RGB, lambda x: x ** (563 / 256)),
])  # fmt: skip
def test_matrix_profiles_agree_with_their_standard(data: bytes, primaries, decode) -> None:
    values = np.random.default_rng(2).random((50, 50, 3)).astype(np.float32)
    expected = decode(values) @ rgb_to_rgb(primaries, BT709).T
    np.testing.assert_allclose(icc.parse(data).linear(values), expected, atol=3e-4)


def test_sixteen_bits_keep_their_depth() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    values = np.repeat(ramp[..., None], 3, axis=-1)
    pixels, outside = icc.parse(ADOBE).srgb(values)
    assert outside == 0
    steps = np.diff(pixels[..., 1].ravel())
    assert steps.min() > 0, "neighbouring 16-bit levels became one"
    expected = srgb_encode((np.arange(65536) / 65535).astype(np.float32) ** (563 / 256))
    np.testing.assert_allclose(pixels[..., 1].ravel(), expected, atol=3e-4)


def test_the_share_outside_the_gamut_is_counted() -> None:
    values = np.zeros((10, 10, 3), np.uint8)
    values[:3, :, 1] = 255  # the green of Adobe RGB is outside sRGB
    pixels, outside = icc.parse(ADOBE).srgb(values)
    assert outside == pytest.approx(0.3)
    assert pixels.dtype == np.uint16


def test_srgb_is_recognised() -> None:
    assert icc.parse(icc.srgb_profile()).is_srgb
    assert icc.parse(make.icc_rgb("sRGB", make.SRGB_COLUMNS, make.SRGB_CURVE)).is_srgb
    sampled = make.table_curve(srgb_decode(np.linspace(0, 1, 1024)))
    assert icc.parse(make.icc_rgb("HP sRGB", make.SRGB_COLUMNS, sampled)).is_srgb
    assert not icc.parse(P3).is_srgb
    assert not icc.parse(make.icc_rgb("2.2", make.SRGB_COLUMNS, make.gamma_curve(2.2))).is_srgb


def test_the_written_profile_does_not_depend_on_the_time() -> None:
    made = icc.srgb_profile()
    icc.srgb_profile.cache_clear()
    assert icc.srgb_profile() == made
    assert made[24:36] == bytes.fromhex("07e4 0001 0001 0000 0000 0000")


def test_descriptions_old_and_new() -> None:
    assert icc.parse(P3).description == "Display P3"
    assert icc.parse(icc.srgb_profile()).description == "sRGB built-in"


def test_grey() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = make.icc_grey("grey gamma 1.8", make.gamma_curve(1.8))
    ours, _ = icc.parse(data).srgb(values[..., None])
    assert ours.shape == (16, 16, 1)
    np.testing.assert_allclose(to_float(ours)[..., 0], srgb_encode((values / 255) ** 1.8), atol=2e-3)


@pytest.mark.parametrize(("kind", "numbers", "expected"), [
    (0, (2.0,), lambda x: x**2),
    (1, (2.0, 2.0, -1.0), lambda x: np.where(x >= 0.5, (2 * x - 1) ** 2, 0)),
    (2, (2.0, 1.0, -0.25, 0.125), lambda x: np.where(x >= 0.25, (x - 0.25) ** 2 + 0.125, 0.125)),
    (3, (2.0, 1.0, 0.0, 0.5, 0.5), lambda x: np.where(x >= 0.5, x**2, 0.5 * x)),
    (4, (2.0, 1.0, 0.0, 0.5, 0.5, 0.25, 0.125), lambda x: np.where(x >= 0.5, x**2 + 0.25, 0.5 * x + 0.125)),
])  # fmt: skip
def test_parametric_curves(kind: int, numbers: tuple[float, ...], expected) -> None:
    import struct

    tag = struct.pack(f">4s4xHxx{len(numbers)}i", b"para", kind, *(round(n * 65536) for n in numbers))
    profile = icc.parse(make.icc_grey("curve", tag))
    x = np.linspace(0, 1, 101, dtype=np.float32)
    np.testing.assert_allclose(profile.linear(x[:, None])[:, 0], expected(x), atol=1e-4)


def test_tables_go_through_littlecms() -> None:
    corners = np.zeros((2, 2, 2, 2, 3))
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        corners[c, m, y, k] = (100 * (1 - k) * (1 - 0.3 * c - 0.3 * m - 0.2 * y), 0, 0)
    profile = icc.parse(make.icc_tables(b"CMYK", corners))
    assert (profile.space, profile.curves, profile.description) == ("CMYK", (), "tables")
    ink = np.zeros((1, 3, 4), np.uint8)
    ink[0, 1, 3] = 255  # black
    ink[0, 2, 0] = 255  # cyan, here a grey of L* = 70
    found = to_float(icc.through_tables(profile, ink))[0]
    np.testing.assert_allclose(found[0], 1, atol=0.01)
    np.testing.assert_allclose(found[1], 0, atol=0.01)
    luminance = ((70 + 16) / 116) ** 3
    np.testing.assert_allclose(found[2], srgb_encode(np.float32(luminance)), atol=0.01)


def test_damaged_profiles_are_refused() -> None:
    refused = 0
    for length in range(0, len(P3), 7):
        try:
            icc.parse(P3[:length])
        except icc.ProfileError:
            refused += 1
    assert refused > 0.9 * len(range(0, len(P3), 7))
    with pytest.raises(icc.ProfileError):
        icc.parse(make.icc_tables(b"Lab ", np.zeros((2, 2, 2, 3))))
    with pytest.raises(icc.ProfileError):
        icc.through_tables(icc.Profile("none", "CMYK", data=b"nonsense"), np.zeros((2, 2, 4), np.uint8))


def test_damage_never_raises_anything_else() -> None:
    rng = np.random.default_rng(3)
    for data in (P3, ADOBE, icc.srgb_profile()):
        for _ in range(300):
            broken = bytearray(data)
            for place in rng.integers(128, len(data), 4):
                broken[place] = rng.integers(256)
            try:
                profile = icc.parse(bytes(broken))
            except icc.ProfileError:
                continue
            if profile.curves:
                profile.srgb(np.zeros((2, 2, 3), np.uint8))
