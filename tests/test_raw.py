"""Reading camera RAW files: synthetic ones for every rule, real ones against LibRaw, damaged ones for their answers."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rawpy

from hdrcli import raw
from hdrcli.codecs import _ifd, dng
from hdrcli.codecs._ifd import LONG, SHORT, Entry
from hdrcli.errors import ReadError
from hdrcli.sensor import Mosaic, camera_linear, canonical, upright

NEUTRAL = (0.5, 1.0, 0.625)
TO_CAMERA = np.array([[0.902, -0.289, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]])

Writer = Callable[..., Path]


def scenery(height: int = 48, width: int = 64) -> np.ndarray:
    """10-bit counts with structure, nothing clipped, black level 64."""
    y, x = np.mgrid[:height, :width]
    waves = 1 + np.sin(x / 7) * np.cos(y / 5)
    return (80 + 350 * waves + np.random.default_rng(0).normal(0, 3, waves.shape)).astype(np.uint16)


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes counts as a DNG of a plain camera, with whatever is said to be different."""

    def written(counts: np.ndarray, **changes: Any) -> Path:
        path = tmp_path / "written.dng"
        facts = {"black": 64, "white": 1023, "as_shot_neutral": NEUTRAL, "color_matrix": TO_CAMERA}
        dng.write(path, counts, **{**facts, **changes})
        return path

    return written


def edited(path: Path, changes: dict[int, Entry]) -> bytes:
    """The bytes of a DNG of ours with some of its tags changed."""
    data = path.read_bytes()
    tags = _ifd.read(data)
    strip = data[int(tags[273].values[0]) :]
    tags |= changes
    tags[273] = Entry(LONG, (len(_ifd.build(tags, {})),))
    return _ifd.build(tags, {}) + strip


def half_size(mosaic: Mosaic) -> np.ndarray:
    """(h, w, 3) RGB of the canonical feed."""
    blue, gr, red, gb = canonical(mosaic)
    return np.stack([red, (gr + gb) / 2, blue], axis=-1)


# ------------------------------------------------------------------------------------------ what a file says


@pytest.mark.parametrize("pattern", dng.PATTERNS)
@pytest.mark.parametrize("shape", [(48, 64), (47, 63)])
def test_every_phase_and_size_arrives_whole(write: Writer, pattern: str, shape: tuple[int, int]) -> None:
    counts = scenery(*shape)
    mosaic = raw.read(write(counts, pattern=pattern))
    top, left, height, width = mosaic.crop
    np.testing.assert_array_equal(mosaic.counts[top : top + height, left : left + width], counts)
    assert mosaic.counts.shape[0] % 2 == mosaic.counts.shape[1] % 2 == 0
    assert pattern[2 * (top % 2) + left % 2] == "R"
    np.testing.assert_array_equal(mosaic.black, np.full((2, 2), 64))
    np.testing.assert_allclose(mosaic.balance, 1 / np.array(NEUTRAL), rtol=1e-5)
    np.testing.assert_allclose(mosaic.matrix.sum(axis=1), 1)
    assert (mosaic.white, mosaic.bits, mosaic.meta.notes, mosaic.meta.bits) == (1023, 10, (), 10)


def test_black_levels_follow_their_position_through_every_phase(write: Writer) -> None:
    for pattern in dng.PATTERNS:
        path = write(scenery(), pattern=pattern)
        levels = {50713: Entry(SHORT, (2, 2)), 50714: Entry(LONG, (10, 20, 30, 40))}
        mosaic = raw.read(edited(path, levels))
        top, left = mosaic.crop[:2]
        np.testing.assert_array_equal(
            np.roll(mosaic.black, (-top, -left), (0, 1)), [[10, 20], [30, 40]], err_msg=pattern
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_handed_on(write: Writer, orientation: int) -> None:
    assert raw.read(write(scenery(), orientation=orientation)).orientation == orientation


def test_bytes_and_paths_are_the_same_and_are_named(write: Writer) -> None:
    path = write(scenery())
    from_path, from_bytes = raw.read(path), raw.read(path.read_bytes(), name="a name")
    np.testing.assert_array_equal(from_path.counts, from_bytes.counts)
    assert (from_path.meta.source, from_bytes.meta.source) == ("written.dng", "a name")
    assert raw.read(path.read_bytes()).meta.source == "-"


def test_exif_comes_along_upright(write: Writer) -> None:
    block = raw.read(write(scenery(), make="Maker", model="Model 1", orientation=6)).meta.exif
    directory = _ifd.read(block)
    assert (directory[271].text, directory[272].text) == ("Maker", "Model 1")
    assert directory[_ifd.ORIENTATION].values == (1,)


# ------------------------------------------------------------------------------------------ guesses and repairs


def test_white_balance_falls_back_and_says_so(write: Writer) -> None:
    unknown = {50728: Entry(5, (0, 1, 0, 1, 0, 1))}
    data = edited(write(scenery()), unknown)
    camera = raw.read(data)
    assert any("daylight white balance used" in note for note in camera.meta.notes)
    np.testing.assert_allclose(camera.balance, raw.read(data, balance="daylight").balance)


def test_counts_without_white_balance_are_judged_by_eye(write: Writer) -> None:
    counts = scenery().astype(float)
    for row, column, gain in ((0, 0, 0.5), (1, 1, 0.625)):
        counts[row::2, column::2] = 64 + (counts[row::2, column::2] - 64) * gain
    unbalanced = raw.read(write(counts.astype(np.uint16), as_shot_neutral=(1, 1, 1)))
    np.testing.assert_allclose(np.log2(unbalanced.balance * NEUTRAL), 0, atol=0.15)
    assert any("estimated" in note for note in unbalanced.meta.notes)
    balanced = raw.read(write(scenery(), as_shot_neutral=(1, 1, 1)))
    assert balanced.meta.notes == ()
    np.testing.assert_array_equal(balanced.balance, 1)


def test_auto_white_balance_ignores_what_the_camera_says(write: Writer) -> None:
    mosaic = raw.read(write(scenery()), balance="auto")
    np.testing.assert_allclose(np.log2(mosaic.balance), 0, atol=0.15)


def test_a_missing_matrix_is_replaced_by_a_typical_one_and_said(write: Writer) -> None:
    mosaic = raw.read(write(scenery(), color_matrix=np.zeros((3, 3))))
    np.testing.assert_array_equal(mosaic.matrix, raw.TYPICAL_MATRIX)
    np.testing.assert_allclose(raw.TYPICAL_MATRIX.sum(axis=1), 1)
    assert any("colour matrix" in note for note in mosaic.meta.notes)


def test_a_white_level_out_of_reach_is_lowered(write: Writer) -> None:
    mosaic = raw.read(write(scenery(), bits=16, white=65535))
    assert (mosaic.white, mosaic.bits) == (1023, 10)
    assert any("1023 assumed" in note for note in mosaic.meta.notes)


def test_a_white_level_below_the_picture_is_raised(write: Writer) -> None:
    counts = scenery()
    mosaic = raw.read(write(counts, white=500))
    assert mosaic.white == counts.max()
    assert any("beyond the white level 500" in note for note in mosaic.meta.notes)


def test_a_black_level_above_the_white_level_is_replaced(write: Writer) -> None:
    counts = scenery()
    mosaic = raw.read(write(counts, black=2000))
    assert mosaic.black.max() <= np.percentile(counts, 1)
    assert any("black level 2000" in note for note in mosaic.meta.notes)


def test_the_black_level_that_huawei_forgets_is_known(write: Writer) -> None:
    assert raw.read(write(scenery(), black=0, make="HUAWEI", model="CLT-L29")).black.tolist() == [[64, 64], [64, 64]]
    assert raw.read(write(scenery(), black=0, make="Other")).black.tolist() == [[0, 0], [0, 0]]


def test_missing_rows_are_left_out(write: Writer) -> None:
    counts = scenery()
    counts[28:] = 0
    mosaic = raw.read(write(counts))
    assert mosaic.crop == (0, 0, 28, 64)
    assert any("last 20 of 48 rows" in note for note in mosaic.meta.notes)


def test_noise_is_called_noise(write: Writer) -> None:
    noise = np.random.default_rng(0).integers(0, 1024, (64, 64)).astype(np.uint16)
    assert any("noise" in note for note in raw.read(write(noise)).meta.notes)


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (np.full((48, 64), 300), "one value"),
        (np.zeros((48, 64)), "one value"),
        (np.random.default_rng(0).integers(40, 60, (48, 64)), "black"),
        (np.random.default_rng(0).integers(1020, 1024, (48, 64)), "white"),
        (np.pad(scenery(2, 64), ((0, 46), (0, 0))), "one value"),
    ],
)
def test_frames_without_a_picture_are_refused(write: Writer, counts: np.ndarray, reason: str) -> None:
    with pytest.raises(ReadError, match=reason) as caught:
        raw.read(write(counts.astype(np.uint16)))
    assert "written.dng" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "finished JPEG"),
        (b"GIF89a" + bytes(99), "finished GIF"),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(99), "finished WebP"),
        (b"#?RADIANCE\n" + bytes(99), "finished Radiance"),
        (b"just a text\n" * 99, "not a camera RAW file"),
        (_ifd.build({256: Entry(LONG, (40,)), 257: Entry(LONG, (40,))}, {}) + bytes(99), "finished TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged or incomplete"),
    ],
)
def test_files_of_another_kind_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(ReadError, match=reason) as caught:
        raw.read(data, name="this file")
    assert caught.value.message.startswith("this file ")
    assert caught.value.hint


def test_small_and_jpeg_xl_files_are_explained(write: Writer) -> None:
    with pytest.raises(ReadError, match="16x16 pixels, and LibRaw takes none below 22"):
        raw.read(write(scenery(16, 16)))
    with pytest.raises(ReadError, match="JPEG XL"):
        raw.read(edited(write(scenery()), {259: Entry(SHORT, (52546,))}))


def test_missing_files_and_folders_are_read_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.dng"):
        with pytest.raises(ReadError):
            raw.read(path)


def test_a_cut_file_is_refused_without_a_word_on_the_terminal(write: Writer, capfd: pytest.CaptureFixture[str]) -> None:
    data = write(scenery()).read_bytes()
    with pytest.raises(ReadError, match="damaged or cut short"):
        raw.read(data[:-1000])
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------ mosaics as PNG


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_mosaics_are_for_the_native_feed_only(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "1.png"
    counts = (scenery(21, 30) // (4 if kind is np.uint8 else 1)).astype(kind)
    cv2.imwrite(str(path), counts)
    mosaic = raw.read(path, sensor="native")
    np.testing.assert_array_equal(mosaic.counts[:21], counts)
    assert (mosaic.counts.shape, mosaic.crop, mosaic.bits) == ((22, 30), (0, 0, 21, 30), 10)
    with pytest.raises(ReadError) as caught:
        raw.read(path)
    assert "--sensor native" in caught.value.hint


def test_png_pictures_go_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ReadError, match="finished PNG"):
        raw.read(path, sensor="native")


# ------------------------------------------------------------------------------------------ real files


def real(shared_data: Path) -> list[Path]:
    files = sorted(path for path in (shared_data / "raw").iterdir() if path.suffix.lower() in raw.SUFFIXES)
    return [path for path in files if not path.name.startswith("tiny")]


@pytest.mark.shared_data
def test_every_real_file_gives_a_picture(shared_data: Path) -> None:
    for path in real(shared_data):
        mosaic = raw.read(path)
        top, left, height, width = mosaic.crop
        assert top + height <= mosaic.counts.shape[0], path
        assert left + width <= mosaic.counts.shape[1], path
        np.testing.assert_allclose(mosaic.matrix.sum(axis=1), 1, atol=1e-6, err_msg=path.name)
        assert mosaic.balance[1] == 1, path
        assert np.isfinite(canonical(mosaic)).all(), path
        assert mosaic.meta.exif, path


@pytest.mark.shared_data
def test_colours_agree_with_libraw(shared_data: Path) -> None:
    """Medians of linear BT.709 within 0.5 %; clipped greens, which are mended here, do not move a median."""
    compared = 0
    for path in real(shared_data):
        mosaic = raw.read(path)
        with rawpy.imread(str(path)) as file:
            pattern = file.raw_pattern
            if (
                pattern is None
                or pattern.shape != (2, 2)
                or path.suffix == ".KDC"
                or mosaic.crop[0] % 2 + mosaic.crop[1] % 2
            ):
                continue  # LibRaw has a conversion of its own for the Kodak DC; blocks of other phases lie elsewhere
            known = file.color_matrix.any() or file.rgb_xyz_matrix.any()
            gains = mosaic.balance / mosaic.balance.min()
            theirs = file.postprocess(
                half_size=True,
                user_wb=[float(gain) for gain in gains[[0, 1, 2, 1]]],
                no_auto_bright=True,
                adjust_maximum_thr=0.0,
                gamma=(1, 1),
                output_bps=16,
                user_flip=0,
                user_sat=round(mosaic.white - float(mosaic.black.mean())),
            )
        ours = mosaic if known else replace(mosaic, matrix=np.eye(3))
        blue, gr, red, gb = camera_linear(ours) / mosaic.balance.min()
        medians = [float(np.median(plane)) for plane in (red, (gr + gb) / 2, blue)]
        np.testing.assert_allclose(medians, np.median(theirs, axis=(0, 1)) / 65535, rtol=5e-3, err_msg=path.name)
        compared += 1
    assert compared >= 18


@pytest.mark.shared_data
def test_four_phases_of_one_scene_look_alike(shared_data: Path) -> None:
    pictures = []
    for pattern in dng.PATTERNS:
        mosaic = raw.read(shared_data / "raw" / f"DSC_1339_{pattern}_14bit.dng")
        full = np.repeat(np.repeat(half_size(mosaic), 2, axis=0), 2, axis=1)
        pictures.append(cv2.GaussianBlur(upright(full, mosaic), (0, 0), 4))
    for picture in pictures[1:]:
        np.testing.assert_allclose(picture.mean(axis=(0, 1)), pictures[0].mean(axis=(0, 1)), rtol=0.02)
        assert np.corrcoef(picture.ravel(), pictures[0].ravel())[0, 1] > 0.99


@pytest.mark.shared_data
def test_other_sensors_look_like_the_bayer_one(shared_data: Path) -> None:
    def small(name: str) -> np.ndarray:
        mosaic = raw.read(shared_data / "raw" / name)
        full = upright(np.repeat(np.repeat(half_size(mosaic), 2, axis=0), 2, axis=1), mosaic)
        return cv2.resize(full, (24, 18), interpolation=cv2.INTER_AREA)

    bayer = small("HERO6_12bit_packed.dng")
    for name in ("HERO6_linear_rgb16.dng", "HERO6_xtrans_synth_14bit.dng", "HERO6_10bit_packed.dng"):
        stops = np.log2(small(name) / bayer)
        assert abs(np.median(stops)) < 0.1, name  # the anchors see other noise
        assert np.median(np.abs(stops - np.median(stops))) < 0.05, name
    mono = small("HERO6_mono_synth_12bit.dng")
    assert np.median(mono.std(axis=2) / mono.mean(axis=2)) < 0.02  # edges fall differently on the sites


@pytest.mark.shared_data
def test_orientations_show_one_scene(shared_data: Path) -> None:
    first = upright_half(shared_data / "raw" / "HERO7_orient1_498x374_10bit.dng")
    for orientation, turns in ((3, 2), (6, -1), (8, 1)):
        other = upright_half(shared_data / "raw" / f"HERO7_orient{orientation}_498x374_10bit.dng")
        np.testing.assert_array_equal(other, np.rot90(first, turns))
    rotated = raw.read(shared_data / "raw" / "sample_1mp_rotated.dng")
    assert rotated.orientation == 8, "kept although LibRaw rendered the file"


def upright_half(path: Path) -> np.ndarray:
    mosaic = raw.read(path)
    return upright(np.repeat(np.repeat(half_size(mosaic), 2, axis=0), 2, axis=1), mosaic)


@pytest.mark.shared_data
def test_the_crop_is_that_of_the_cameras_own_jpeg(shared_data: Path) -> None:
    """The frame of the S40 lies over its own JPEG, and its grey patches are as neutral."""
    mosaic = raw.read(shared_data / "raw" / "S40_CRW_0105.CRW")
    assert mosaic.crop[2:] == (1704, 2272)
    ours = cv2.resize(upright_half(shared_data / "raw" / "S40_CRW_0105.CRW"), (640, 480), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imread(str(shared_data / "raw" / "S40_CRW_0105.CRW.jpg"))[:, :, ::-1]
    shift, _ = cv2.phaseCorrelate(np.sqrt(np.float64(ours[..., 1])), np.float64(jpeg[..., 1]))
    assert np.abs(shift).max() < 1.0, shift
    grey = (np.ptp(jpeg.astype(int), axis=2) < 8) & (jpeg[..., 1] > 40) & (jpeg[..., 1] < 190)
    red, green, blue = ours[grey].mean(axis=0)
    np.testing.assert_allclose([red / green, blue / green], 1, atol=0.08)


@pytest.mark.shared_data
def test_the_long_pixels_of_the_dc120_become_square(shared_data: Path) -> None:
    height, width, _ = upright_half(shared_data / "raw" / "DC120_P003910.KDC").shape
    assert (width, height) == (1301, 976)


DAMAGED = {
    "crw_trunc_10pct.CRW": "not a camera RAW file",
    "dng_bitflips_in_data.dng": None,
    "dng_bits_33.dng": "damaged or coded in a way unknown",
    "dng_black_above_white.dng": "note: black level 2000",
    "dng_header_only_8.dng": "damaged or cut short",
    "dng_huge_dimensions.dng": "more than the 1,000,000,000",
    "dng_ifd_loop.dng": "not a camera RAW file",
    "dng_strip_offset_past_end.dng": "damaged or cut short",
    "dng_trailing_garbage.dng": None,
    "dng_trunc_10pct.dng": "damaged or cut short",
    "dng_trunc_1pct.dng": "damaged or cut short",
    "dng_trunc_50pct.dng": "damaged or cut short",
    "dng_trunc_90pct.dng": "damaged or cut short",
    "dng_trunc_99pct.dng": "damaged or cut short",
    "dng_unknown_compression.dng": "damaged or coded in a way unknown",
    "dng_white_level_zero.dng": None,
    "dng_zero_data_second_half.dng": "note: last 188 of 374 rows",
    "dng_zero_width.dng": "damaged or coded in a way unknown",
    "dng_zeroed_header.dng": "not a camera RAW file",
    "empty.dng": "empty",
    "jpeg_renamed.CR2": "finished JPEG",
    "jpeg_renamed.dng": "finished JPEG",
    "kdc_trunc_20pct.KDC": "damaged or cut short",
    "kdc_trunc_60pct.KDC": "note: last 448 of 976 rows",
    "kdc_trunc_97pct.KDC": "note: last 48 of 976 rows",
    "one_byte.cr2": "damaged or cut short",
    "png_renamed.nef": "PNG with one channel",
    "random_64k.nef": "not a camera RAW file",
    "text.dng": "not a camera RAW file",
}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_fail_in_words_or_succeed_with_a_note(
    shared_data: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = DAMAGED[name]
    path = shared_data / "raw" / "bad" / name
    if expected is None or expected.startswith("note: "):
        notes = raw.read(path).meta.notes
        assert expected is None or any(expected.removeprefix("note: ") in note for note in notes), notes
    else:
        with pytest.raises(ReadError, match=expected) as caught:
            raw.read(path)
        assert name in caught.value.message
        assert caught.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.shared_data
def test_threads_share_the_silence(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def attempt(path: Path) -> bool:
        try:
            return bool(raw.read(path))
        except ReadError:
            return False

    paths = [shared_data / "raw" / "bad" / name for name in ("dng_trunc_50pct.dng", "kdc_trunc_60pct.KDC")] * 10
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, paths)) == [False, True] * 10
    print("still heard", file=sys.stderr)
    assert capfd.readouterr() == ("", "still heard\n")
