"""Digital Negatives written by the program, read back by LibRaw; TIFF directories and EXIF blocks."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rawpy
from hypothesis import given
from hypothesis import strategies as st

from hdrcli.codecs import _ifd, _rawexif, dng
from hdrcli.codecs._ifd import ASCII, LONG, SHORT, Entry
from hdrcli.errors import WriteError

NEUTRAL = (0.513, 1.0, 0.744)
TO_CAMERA = np.array([[0.902, -0.289, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]])
FLIPS = {1: 0, 2: 1, 3: 3, 4: 2, 5: 4, 6: 6, 7: 7, 8: 5}


@pytest.mark.parametrize("pattern", dng.PATTERNS)
@pytest.mark.parametrize(
    ("shape", "bits"), [((37, 41), 10), ((64, 63), 10), ((23, 80), 12), ((40, 22), 14), ((31, 33), 16)]
)
def test_libraw_reads_back_what_was_written(tmp_path: Path, pattern: str, shape: tuple[int, int], bits: int) -> None:
    path = tmp_path / "written.dng"
    counts = np.random.default_rng(0).integers(0, 2**bits, shape).astype(np.uint16)
    levels = {"black": 2**bits // 16 + 1, "white": 2**bits - 5}
    dng.write(path, counts, pattern=pattern, as_shot_neutral=NEUTRAL, color_matrix=TO_CAMERA, bits=bits, **levels)
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image_visible, counts)
        assert raw.raw_pattern is not None
        assert "".join(chr(raw.color_desc[colour]) for colour in raw.raw_pattern.ravel()) == pattern
        assert raw.black_level_per_channel == [levels["black"]] * 4
        assert raw.white_level == levels["white"]
        np.testing.assert_allclose(1 / np.array(raw.camera_whitebalance[:3]), NEUTRAL, rtol=1e-5)
        to_rgb = np.linalg.inv(np.array(raw.color_matrix[:, :3], np.float64))
    xyz_to_rgb = TO_CAMERA @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    np.testing.assert_allclose(to_rgb, xyz_to_rgb / xyz_to_rgb.sum(axis=1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("orientation", FLIPS)
def test_orientation_is_written(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.dng"
    counts = np.zeros((24, 24), np.uint16)
    dng.write(
        path, counts, black=0, white=1023, as_shot_neutral=NEUTRAL, color_matrix=TO_CAMERA, orientation=orientation
    )
    with rawpy.imread(str(path)) as raw:
        assert raw.sizes.flip == FLIPS[orientation]


@pytest.mark.parametrize(
    ("counts", "bits"), [(np.full((24, 24), 1024), 10), (np.zeros((4, 4, 3)), 10), (np.zeros((4, 4)), 7)]
)
def test_counts_that_do_not_fit_are_refused(tmp_path: Path, counts: np.ndarray, bits: int) -> None:
    path = tmp_path / "refused.dng"
    with pytest.raises(WriteError, match="cannot hold"):
        dng.write(
            path, counts.astype(np.uint16), black=0, white=1, as_shot_neutral=NEUTRAL, color_matrix=TO_CAMERA, bits=bits
        )
    assert not path.exists()


@given(
    st.dictionaries(
        st.integers(1, 65535).filter(lambda tag: tag != _ifd.SUB_IFDS),
        st.one_of(
            st.builds(Entry, st.just(SHORT), st.lists(st.integers(0, 65535), min_size=1, max_size=9).map(tuple)),
            st.builds(Entry, st.just(LONG), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9).map(tuple)),
            st.text("abc xyz", max_size=9).map(_ifd.text),
            st.floats(0, 1e6).map(_ifd.rational),
        ),
    )
)
def test_a_directory_survives_being_written_and_read(directory: dict[int, Entry]) -> None:
    assert _ifd.read(_ifd.build(directory, {})) == directory


def test_damaged_directories_end_quietly() -> None:
    whole = _ifd.build({256: Entry(LONG, (1, 2, 3)), 271: _ifd.text("a camera")}, {_ifd.EXIF_IFD: {1: _ifd.text("x")}})
    for length in range(len(whole)):
        assert set(_ifd.read(whole[:length])) <= {256, 271, _ifd.EXIF_IFD}
    itself = bytearray(_ifd.build({256: Entry(LONG, (7,))}, {}))
    itself[-4:] = (8).to_bytes(4, "little")  # the next directory is this one
    assert len(list(_ifd.directories(bytes(itself)))) == 1
    assert list(_ifd.directories(b"")) == list(_ifd.directories(b"MM\0*")) == []


def test_exif_prefers_the_file_and_falls_back_on_libraw() -> None:
    tiff = _ifd.build(
        {271: _ifd.text("Maker")}, {_ifd.EXIF_IFD: {33437: _ifd.rational(2.8), 37500: Entry(7, (1,) * 99)}}
    )
    known = {_rawexif.ISO: 100.0, _rawexif.F_NUMBER: 9.0, _rawexif.EXPOSURE_TIME: 0.01, _rawexif.FOCAL_LENGTH: 0.0}
    block = _rawexif.collect(tiff, known, datetime(2020, 2, 3, 4, 5, 6), "a lens")
    below = _ifd.read(block, _ifd.EXIF_IFD)
    assert _ifd.read(block)[271].text == "Maker"
    assert _ifd.read(block)[_ifd.ORIENTATION] == Entry(SHORT, (1,))
    assert below[33437].values == (2_800_000, 1_000_000)
    assert below[34855] == Entry(SHORT, (100,))
    assert below[36867].text == "2020:02:03 04:05:06"
    assert below[42036] == _ifd.text("a lens")
    assert below[42036].kind == ASCII
    assert not {37386, 37500} & set(below)
    assert _rawexif.collect(b"", {}, None, "") == b""


@pytest.mark.parametrize("before", [b"", b"\xff\xd8\xff\xe1\0\0Exif\0\0", b"\0\0\0\x18ftypcrx " + bytes(99) + b"CMT1"])
def test_exif_is_found_in_tiff_jpeg_and_cr3_headers(before: bytes) -> None:
    tiff = _ifd.build({272: _ifd.text("Camera 1")}, {})
    assert _ifd.read(_rawexif.tiff_part(before + tiff))[272].text == "Camera 1"
    assert _rawexif.tiff_part(b"nothing of the kind") == b""
