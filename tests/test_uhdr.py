"""Ultra HDR JPEG: the user's own picture untouched, a gain map that libultrahdr reads as we meant it."""

import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from picture_files import by_pillow, icc_grey, icc_rgb, icc_tables, saved
from PIL import Image as Pillow
from PIL.JpegImagePlugin import JpegImageFile

from hdrcli import codecs
from hdrcli.codecs import WriteOptions, _gainmap, _jpegfile, _xmp
from hdrcli.codecs._jpegfile import APP1, APP2, COM, Segment
from hdrcli.color import srgb_decode
from hdrcli.errors import UsageError
from hdrcli.image import Image, Metadata, Transfer

SIZE = (120, 176)
XMP = _xmp.described(b"", "http://purl.org/dc/elements/1.1/", "dc", {"title": "kept"})


def smooth() -> np.ndarray:
    """(120, 176, 3) bytes of soft colours over the whole range."""
    noise = np.random.default_rng(0).random((*SIZE, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 12)
    return np.rint(255 * (soft - soft.min()) / np.ptp(soft)).astype(np.uint8)


def photo(orientation: int = 1, **options: Any) -> bytes:
    """A JPEG as cameras write it, with EXIF, XMP and a comment."""
    exif = Pillow.Exif()
    exif[274], exif[271] = orientation, "Maker"
    return saved(smooth(), "JPEG", exif=exif.tobytes(), xmp=XMP, comment=b"hi", quality=92, subsampling=0, **options)


def light_of(base: Image) -> Image:
    """Light up to six times the white of the base, with a response of its own, in parts of 203 cd/m2."""
    linear = srgb_decode(base.pixels)
    return Image(linear * (0.8 + 5 * linear**3), Transfer.LINEAR, white=203.0, meta=Metadata(extra={"hdr:model": "m"}))


def write(tmp_path: Path, base: Image, **options: Any) -> Path:
    path = tmp_path / "u.jpg"
    assert codecs.write(light_of(base), path, "jpg", WriteOptions(base=base, **options)) == []
    return path


def by_libultrahdr(path: Path) -> np.ndarray:
    """The HDR rendition, stored geometry, in parts of SDR white."""
    imagecodecs = pytest.importorskip("imagecodecs")
    return np.asarray(imagecodecs.ultrahdr_decode(path.read_bytes()), np.float32)[..., :3]


def stops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(np.log2((a + _gainmap.OFFSET) / (b + _gainmap.OFFSET)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "restart_marker_blocks": 3}])
def test_the_coded_picture_and_its_tables_stay_byte_for_byte(tmp_path: Path, options: dict[str, Any]) -> None:
    file = photo(**options)
    before = _jpegfile.parts(file)
    after = _jpegfile.parts(write(tmp_path, codecs.read(file)).read_bytes())
    assert after.picture == before.picture
    added = [segment for segment in after.head if segment not in before.head]
    assert [segment for segment in after.head if segment in before.head] == before.head
    assert [(segment.marker, segment.content[:4]) for segment in added] == [(APP2, b"urn:"), (APP2, b"MPF\0")]


def test_any_reader_shows_the_base(tmp_path: Path) -> None:
    file = photo(6)
    path = write(tmp_path, codecs.read(file))
    np.testing.assert_array_equal(np.asarray(by_pillow(path)), np.asarray(Pillow.open(BytesIO(file))))
    np.testing.assert_array_equal(cv2.imread(str(path)), cv2.imdecode(np.frombuffer(file, np.uint8), 1))
    np.testing.assert_array_equal(codecs.read(path).pixels, codecs.read(file).pixels)
    assert by_pillow(path).getexif()[274] == 6


def test_the_index_leads_to_the_map(tmp_path: Path) -> None:
    path = write(tmp_path, codecs.read(photo()))
    data = path.read_bytes()
    picture = Pillow.open(BytesIO(data))
    assert picture.n_frames == 2, "as Pillow reads the multi-picture index"
    picture.seek(1)
    assert picture.size == (88, 60)
    index = picture.mpinfo[0xB002]
    assert [entry["Size"] for entry in index] == [len(data) - len(second := second_file(data)), len(second)]


def second_file(data: bytes) -> bytes:
    return _jpegfile.parts(data).rest


@pytest.mark.parametrize("orientation", range(1, 9))
def test_light_comes_back_in_every_orientation(tmp_path: Path, orientation: int) -> None:
    base = codecs.read(photo(orientation))
    path = write(tmp_path, base, map_step=1)
    stored = by_libultrahdr(path)
    assert stored.shape == (*SIZE, 3)
    error = stops(turned(stored, orientation), light_of(base).pixels)
    assert np.percentile(error, 99) < 0.08, f"{np.percentile(error, 99):.3f} stops"
    assert error.max() < 0.2


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By Pillow's own idea of orientation, channel by channel."""
    method = {
        2: Pillow.Transpose.FLIP_LEFT_RIGHT,
        3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM,
        5: Pillow.Transpose.TRANSPOSE,
        6: Pillow.Transpose.ROTATE_270,
        7: Pillow.Transpose.TRANSVERSE,
        8: Pillow.Transpose.ROTATE_90,
    }.get(orientation)
    planes = [Pillow.fromarray(np.ascontiguousarray(pixels[..., channel])) for channel in range(3)]
    return np.stack([np.asarray(plane.transpose(method) if method is not None else plane) for plane in planes], axis=-1)


@pytest.mark.parametrize(("step", "limit"), [(1, 0.08), (2, 0.16), (3, 0.25), (4, 0.35)])
def test_smaller_maps_cost_little_where_light_is_smooth(tmp_path: Path, step: int, limit: float) -> None:
    base = codecs.read(photo())
    error = stops(by_libultrahdr(write(tmp_path, base, map_step=step)), light_of(base).pixels)
    assert np.percentile(error, 99) < limit, f"{np.percentile(error, 99):.3f} stops"


def test_one_gain_for_all_channels_keeps_the_mean(tmp_path: Path) -> None:
    base = codecs.read(photo())
    found = by_libultrahdr(write(tmp_path, base, map_step=1, map_channels=1)).mean(axis=2)
    assert np.percentile(stops(found, light_of(base).pixels.mean(axis=2)), 99) < 0.25


def test_odd_sizes_and_other_readers_metadata(tmp_path: Path) -> None:
    file = saved(smooth()[:117, :171], "JPEG", quality=95, subsampling=0)
    base = codecs.read(file)
    error = stops(by_libultrahdr(write(tmp_path, base, map_xmp=True)), light_of(base).pixels)
    assert np.percentile(error, 99) < 0.18


def test_white_nits_scale_the_light(tmp_path: Path) -> None:
    base = codecs.read(photo())
    light = replace(light_of(base), white=406.0)
    codecs.write(light, tmp_path / "u.jpg", "jpg", WriteOptions(base=base, map_step=1))
    assert np.percentile(stops(by_libultrahdr(tmp_path / "u.jpg"), 2 * light.pixels), 99) < 0.1


def test_a_base_of_other_kinds_is_encoded(tmp_path: Path) -> None:
    base = Image(smooth() / np.float32(255), Transfer.SRGB)
    path = write(tmp_path, base, map_step=1)
    assert np.abs(codecs.read(path).pixels - base.pixels).max() < 0.05
    assert np.percentile(stops(by_libultrahdr(path), light_of(base).pixels), 99) < 0.1


P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))  # columns of Display P3 at D50


def test_a_wide_base_keeps_its_profile_and_the_light_is_that_of_its_space(tmp_path: Path) -> None:
    curve = struct.pack(">4s4xIH", b"curv", 1, 563)
    file = saved(smooth(), "JPEG", icc_profile=icc_rgb("wide", P3, curve), quality=97, subsampling=0)
    base = codecs.read(file)
    assert base.meta.profile == "wide"
    path = write(tmp_path, base, map_step=1)
    assert _jpegfile.parts(path.read_bytes()).picture == _jpegfile.parts(file).picture
    own = (smooth() / 255.0) ** (563 / 256)
    target = light_of(base).pixels @ np.linalg.inv(to_bt709()).T
    gains = decoded_gains(path.read_bytes())
    found = (own + _gainmap.OFFSET) * 2.0**gains - _gainmap.OFFSET
    assert np.percentile(stops(np.maximum(found, 0), np.maximum(target, 0)), 99) < 0.25


def to_bt709() -> np.ndarray:
    from hdrcli import icc

    matrix = icc.parse(icc_rgb("", P3, struct.pack(">4s4xIH", b"curv", 1, 563))).matrix
    assert matrix is not None
    return matrix


def decoded_gains(data: bytes) -> np.ndarray:
    """log2 gains by the formula of the standard, read with nothing of the writer's."""
    second = _jpegfile.parts(second_file(data))
    numbers = second.content(APP2, _jpegfile.ISO_21496)
    low, low_unit, high, high_unit = struct.unpack_from(">iIiI", numbers, 21)
    codes = np.asarray(JpegImageFile(BytesIO(second_file(data))), np.float64) / 255
    return low / low_unit + (high / high_unit - low / low_unit) * codes


def test_grey_stays_grey(tmp_path: Path) -> None:
    for profile in (b"", icc_grey("g", struct.pack(">4s4xIH", b"curv", 1, 563))):
        file = saved(smooth()[..., 0], "JPEG", quality=95, icc_profile=profile)
        path = write(tmp_path, codecs.read(file))
        assert by_pillow(path).mode == "L"


def test_cmyk_and_tables_are_encoded_anew_and_said_so(tmp_path: Path) -> None:
    cmyk = saved(Pillow.fromarray(smooth()).convert("CMYK"), "JPEG")
    corners = np.stack(np.meshgrid([0, 100], [-50, 50], [-50, 50], indexing="ij"), axis=-1).astype(float)
    tables = saved(smooth(), "JPEG", icc_profile=icc_tables(b"RGB ", corners))
    for file in (cmyk, tables):
        base = codecs.read(file)
        notes = codecs.write(light_of(base), tmp_path / "u.jpg", "jpg", WriteOptions(base=base))
        assert any("encoded anew" in note for note in notes)
        assert by_pillow(tmp_path / "u.jpg").mode == "RGB"
        assert np.abs(codecs.read(tmp_path / "u.jpg").pixels - base.pixels).mean() < 0.02


def test_metadata_and_provenance(tmp_path: Path) -> None:
    base = codecs.read(photo(6))
    meta = codecs.read(write(tmp_path, base)).meta
    assert (meta.exif, meta.xmp) == (base.meta.exif, base.meta.xmp)
    assert meta.extra == {"hdr:model": "m"}
    assert any("Ultra HDR" in note for note in meta.notes)
    bare = write(tmp_path, base, metadata=False)
    meta = codecs.read(bare).meta
    assert not meta.extra
    assert not meta.xmp
    assert b"Maker" not in bare.read_bytes()
    np.testing.assert_array_equal(codecs.read(bare).pixels, base.pixels), "the orientation stays"


def test_older_description_is_added_to_the_users_xmp(tmp_path: Path) -> None:
    data = write(tmp_path, codecs.read(photo()), map_xmp=True).read_bytes()
    first = _jpegfile.parts(data)
    packet = first.content(APP1, _jpegfile.XMP).decode()
    assert 'dc:title="kept"' in packet
    assert 'hdrgm:Version="1.0"' in packet
    assert f'Item:Length="{len(first.rest)}"' in packet
    second = _jpegfile.parts(first.rest).content(APP1, _jpegfile.XMP).decode()
    assert 'hdrgm:GainMapMax="' in second


def test_an_ultra_hdr_input_gets_a_new_map(tmp_path: Path) -> None:
    first = write(tmp_path, codecs.read(photo()), map_xmp=True).read_bytes()
    base = codecs.read(first)
    notes = codecs.write(light_of(base), tmp_path / "u.jpg", "jpg", WriteOptions(base=base))
    assert ["do not come along" in note for note in notes] == [True]
    again = (tmp_path / "u.jpg").read_bytes()
    parts = _jpegfile.parts(again)
    assert [s.content[:4] for s in parts.head].count(b"MPF\0") == 1
    assert parts.picture == _jpegfile.parts(first).picture
    assert b"Directory" not in again, "the list of pictures that are no longer there"
    assert np.percentile(stops(by_libultrahdr(tmp_path / "u.jpg"), light_of(base).pixels), 99) < 0.16


def test_a_film_that_follows_the_picture_is_spoken_of(tmp_path: Path) -> None:
    packet = _xmp.described(b"", "http://ns.google.com/photos/1.0/camera/", "GCamera", {"MotionPhoto": "1", "x": "y"})
    file = saved(smooth(), "JPEG", xmp=packet) + b"\0\0\0\x18ftypmp42" + bytes(range(1, 100))
    base = codecs.read(file)
    notes = codecs.write(light_of(base), tmp_path / "u.jpg", "jpg", WriteOptions(base=base))
    assert any(note.startswith("1") and "do not come along" in note for note in notes)
    xmp = codecs.read(tmp_path / "u.jpg").meta.xmp
    assert b"MotionPhoto" not in xmp
    assert b'GCamera:x="y"' in xmp


def test_a_jpeg_without_its_end_is_encoded_anew(tmp_path: Path) -> None:
    base = codecs.read(photo())
    endless = replace(base, meta=replace(base.meta, jpeg=base.meta.jpeg[:-2]))
    notes = codecs.write(light_of(base), tmp_path / "u.jpg", "jpg", WriteOptions(base=endless))
    assert any("encoded anew" in note for note in notes)
    assert np.percentile(stops(by_libultrahdr(tmp_path / "u.jpg"), light_of(base).pixels), 99) < 0.2


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    base = codecs.read(photo())
    light = light_of(base)
    for options in (WriteOptions(), WriteOptions(base=light), WriteOptions(base=base, map_step=5)):
        with pytest.raises(UsageError):
            codecs.write(light, tmp_path / "u.jpg", "jpg", options)
    spoilt = light.pixels.copy()
    spoilt[0, 0] = (-1, np.nan, 1e9)
    notes = codecs.write(replace(light, samples=spoilt), tmp_path / "u.jpg", "jpg", WriteOptions(base=base))
    assert len(notes) == 3
    assert all(note.startswith("1 ") for note in notes)


def test_segments_out_of_order_are_refused() -> None:
    for data in (b"\xff\xd8", b"\xff\xd8\xff\xe1\0\x09a", b"\xff\xd8abcd", photo()[:-2]):
        with pytest.raises(ValueError, match=r"."):
            _jpegfile.parts(data)
    assert Segment(COM, b"x").encoded() == b"\xff\xfe\0\x03x"
