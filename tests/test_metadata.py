"""What is known of a picture stays with it, from camera files and from pictures, into every format, or nowhere."""

from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from standins import known_model

from hdrcli import codecs, raw
from hdrcli.codecs import WriteOptions, _exif, _ifd, _xmp
from hdrcli.codecs._ifd import SHORT, Entry
from hdrcli.errors import ReadError
from hdrcli.image import Image, Metadata, Transfer
from hdrcli.tasks.expand import expand


def block() -> bytes:
    """EXIF with camera, lens, exposure, date and a place in the south-west."""
    exif = {
        33434: _ifd.rational(0.008),
        33437: _ifd.rational(2.8),
        34855: Entry(SHORT, (400,)),
        36867: _ifd.text("2026:01:02 03:04:05"),
        37386: _ifd.rational(35),
        42036: _ifd.text("Lens 35"),
    }
    gps = {
        1: _ifd.text("S"),
        2: _ifd.rational(33, 30, 36),
        3: _ifd.text("W"),
        4: _ifd.rational(70, 15, 0),
    }
    main = {271: _ifd.text("Maker"), 272: _ifd.text("Model 1"), 274: Entry(SHORT, (6,))}
    return _ifd.build(main, {_ifd.EXIF_IFD: exif, _ifd.GPS_IFD: gps})


def test_exr_attributes(tmp_path: Path) -> None:
    meta = Metadata(exif=block(), xmp=b"<x>kept</x>", extra={"hdr:model": "m"})
    image = Image(np.ones((4, 6, 3), np.float32), Transfer.LINEAR, white=203.0, meta=meta)
    codecs.write(image, tmp_path / "x.exr", "exr")
    header = OpenEXR.File(str(tmp_path / "x.exr")).header()
    texts = {"cameraMake": "Maker", "cameraModel": "Model 1", "lensModel": "Lens 35", "capDate": "2026:01:02 03:04:05"}
    assert {key: header[key] for key in texts} == texts
    numbers = {"expTime": 0.008, "aperture": 2.8, "isoSpeed": 400, "nominalFocalLength": 35}
    numbers |= {"latitude": -33.51, "longitude": -70.25, "whiteLuminance": 203}
    assert {key: header[key] for key in numbers} == pytest.approx(numbers, rel=1e-6)
    assert (header["xmp"], header["hdr:model"]) == ("<x>kept</x>", "m")
    assert codecs.read(tmp_path / "x.exr").meta.xmp == b"<x>kept</x>"
    codecs.write(image, tmp_path / "y.exr", "exr", WriteOptions(metadata=False))
    left = OpenEXR.File(str(tmp_path / "y.exr")).header()
    assert not {*texts, "latitude", "xmp", "hdr:model", "software"} & left.keys()


def test_damaged_exif_gives_no_attributes() -> None:
    gps = {1: _ifd.text("N"), 2: Entry(_ifd.RATIONAL, (1, 0, 1, 0, 1, 0)), 4: _ifd.rational(1)}
    exif = {33434: Entry(_ifd.RATIONAL, (1, 0)), 34855: Entry(SHORT, ())}
    assert _exif.as_attributes(_ifd.build({}, {_ifd.EXIF_IFD: exif, _ifd.GPS_IFD: gps})) == {}
    assert _exif.as_attributes(b"") == {}


@pytest.mark.parametrize("format", ["jpg", "png", "tif", "webp", "avif", "jxl"])
def test_the_users_exif_goes_through_expand(format: str, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    meta = Metadata(exif=block(), xmp=_xmp.described(b"", "http://purl.org/dc/elements/1.1/", "dc", {"title": "kept"}))
    codecs.write(Image(np.full((8, 12, 3), 0.5, np.float32), Transfer.SRGB, meta=meta), tmp_path / "x", format)
    light = expand(tmp_path / "x", model=known_model("expand"), gamma=1.25)
    codecs.write(light, tmp_path / "y", "exr")
    header = OpenEXR.File(str(tmp_path / "y")).header()
    assert (header["cameraModel"], header["hdr:gamma"], header["hdr:sha256"]) == ("Model 1", "1.25", "0" * 64)
    assert header["latitude"] == pytest.approx(-33.51)
    assert 'dc:title="kept"' in header["xmp"]


def test_xmp_packets_are_kept_and_marked_once() -> None:
    packet = _xmp.described(b"", "http://purl.org/dc/elements/1.1/", "dc", {"title": 'a "b" <c> & d'})
    once = _xmp.for_output(packet, {"hdr:model": 'm"<&>', "other": "x"})
    twice = _xmp.for_output(once, {"hdr:model": "n"})
    assert _xmp.provenance(once) == {"hdr:model": 'm"<&>'}
    assert _xmp.provenance(twice) == {"hdr:model": "n"}
    assert twice.count(b"<rdf:Description") == 2
    assert _xmp.for_output(packet, {}) == packet
    assert _xmp.for_output(b"", {}) == b""
    assert _xmp.provenance(_xmp.for_output(b"broken", {"hdr:model": "m"})) == {"hdr:model": "m"}


@pytest.mark.shared_data
def test_camera_files_tell_make_model_exposure_and_date(shared_data: Path) -> None:
    found = 0
    for path in sorted((shared_data / "raw").glob("*.dng"))[:12]:
        try:
            exif = raw.read(path).meta.exif
        except ReadError:
            continue
        found += {"cameraMake", "cameraModel"} <= _exif.as_attributes(exif).keys()
    assert found >= 3
