"""Ultra HDR JPEG: an ordinary JPEG, shown by every viewer, followed by a gain map (ISO 21496-1) in the same file.

The two pictures are found by the Multi-Picture Format (CIPA DC-007). Where the ordinary picture came from a JPEG file,
its coded picture and tables stay as they are, byte for byte, with its own orientation; the map lies like it.
"""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL.JpegImagePlugin import JpegImageFile

from hdrcli import icc
from hdrcli.codecs import WriteOptions, _exif, _gainmap, _jpegfile, _linear, _pillow, _xmp
from hdrcli.codecs._gainmap import GainMap
from hdrcli.codecs._jpegfile import APP1, APP2, Parts, Segment
from hdrcli.color import SDR_WHITE, Float32, Float64, apply_matrix, srgb_decode
from hdrcli.errors import UsageError, WriteError
from hdrcli.image import Image, Transfer

STEPS = (1, 2, 3, 4)

_MOST_LIGHT = 10_000 / SDR_WHITE  # where readers end
_HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
_CONTAINER = "http://ns.google.com/photos/1.0/container/"
_PRIMARY = 0x030000  # attribute in the MP index: the picture that is shown
_MAP_QUALITY = 95
_LISTED = re.compile(
    rb"<(G?Container):Directory\b.*?</\1:Directory>|\sG?Camera:(?:MotionPhoto|MicroVideo)\w*=\"[^\"]*\"", re.DOTALL
)
_INVERSE = {6: 8, 8: 6}  # of orientations; the others undo themselves


def write(image: Image, path: Path, options: WriteOptions, encode: Callable[[Image, WriteOptions], bytes]) -> list[str]:
    """Writes linear light as the gain map of `options.base`, the same picture finished.

    encode: makes a JPEG file of a finished picture, for a base that is not one already.
    """
    base = options.base
    if base is None or base.transfer != Transfer.SRGB or base.samples.shape != image.samples.shape:
        raise UsageError("an Ultra HDR JPEG needs the finished picture beside its light", hint="write exr instead")
    if options.map_step not in STEPS or options.map_channels not in (1, 3):
        raise UsageError("a gain map has 1 or 3 channels and a step of 1 to 4", hint="3 channels, step 2")
    scale = np.float32((image.white or SDR_WHITE) / SDR_WHITE)
    light, notes = _linear.clipped(image.pixels * scale, 0, _MOST_LIGHT)
    parts, own = _taken_apart(base.meta.jpeg)
    if own is None:
        notes += ["readers would not show this JPEG right beside a gain map: encoded anew"] if base.meta.jpeg else []
        parts, own = _taken_apart(encode(base, options))
    assert parts is not None and own is not None, "what this program encodes is RGB in sRGB"
    if follows := len(parts.rest.strip(b"\0")):
        notes.append(f"{follows} bytes that follow the picture in its file, such as a film, do not come along")
    turn = _exif.orientation(parts.content(APP1, _jpegfile.EXIF))
    light = _exif.upright(apply_matrix(own.from_bt709, light), _INVERSE.get(turn, turn))
    gain_map = _gainmap.measure(own.light, light, step=options.map_step, channels=options.map_channels)
    path.write_bytes(_container(parts, gain_map, image, options))
    return notes


class _Own(NamedTuple):
    """Light of a JPEG in the primaries of its profile, as it is stored, and the matrix that takes BT.709 there."""

    light: Float32
    from_bt709: Float64


def _taken_apart(file: bytes) -> tuple[Parts | None, _Own | None]:
    """A JPEG file and how readers see its colours; None for none, for one in disorder and for unusual colours."""
    try:
        parts = _jpegfile.parts(file) if file else None
    except ValueError:
        parts = None
    return parts, _own_colours(file) if parts else None


def _own_colours(file: bytes) -> _Own | None:
    """How readers see the colours of a JPEG file; None for CMYK and for profiles that are more than a matrix."""
    picture = _pillow.opened(JpegImageFile, file, "the base")
    embedded = _pillow.icc_profile(picture)
    samples, _ = _pillow.samples(picture, "the base")
    grey = samples.ndim == 2
    if not grey and samples.shape[2] != 3:
        return None
    matrix: Float64 = np.eye(3)
    try:
        profile = icc.parse(embedded) if embedded else None
    except icc.ProfileError:
        profile = None
    if profile is None or profile.is_srgb:
        light = srgb_decode(np.arange(256).astype(np.float32) / np.float32(255))[samples]
    elif profile.curves and (profile.space == "GRAY") == grey:
        light = replace(profile, matrix=None).linear(samples[..., None] if grey else samples)
        if profile.matrix is not None:
            matrix = np.asarray(np.linalg.inv(profile.matrix), np.float64)
    else:
        return None
    return _Own(np.broadcast_to(light.reshape(*samples.shape[:2], -1), (*samples.shape[:2], 3)), matrix)


def _container(parts: Parts, gain_map: GainMap, image: Image, options: WriteOptions) -> bytes:
    """The base with what points to the map, followed by the map."""
    extra = image.meta.extra if options.metadata else {}
    second = _map_file(gain_map, extra, options)
    head = [_without_list(segment) for segment in parts.head if not _replaced(segment)]
    if not options.metadata:
        head = [segment for segment in head if not _personal(segment)]
        turn = _exif.orientation(parts.content(APP1, _jpegfile.EXIF))
        head[:0] = [Segment(APP1, _jpegfile.EXIF + _exif.turned(turn))] if turn != 1 else []
    if options.map_xmp:
        old = next((s for s in head if s.content.startswith(_jpegfile.XMP)), Segment(APP1, b""))
        packet = _directory(old.content.removeprefix(_jpegfile.XMP), len(second))
        head = [segment for segment in head if segment is not old]
        head.insert(_after_exif(head), _segment(APP1, _jpegfile.XMP, packet))
    place = _after_exif(head)
    head.insert(place, Segment(APP2, _jpegfile.ISO_21496 + bytes(4)))  # the version of the metadata
    head.insert(place + 1, Segment(APP2, _index(0, 0, 0)))
    before = len(_jpegfile.joined(head[: place + 1], b"")) + 4 + len(_jpegfile.MPF)  # offsets count from there
    length = len(_jpegfile.joined(head, parts.picture))
    head[place + 1] = Segment(APP2, _index(length, len(second), length - before))
    return _jpegfile.joined(head, parts.picture) + second


def _map_file(gain_map: GainMap, extra: Mapping[str, str], options: WriteOptions) -> bytes:
    """The gain map as a JPEG file with its metadata, and with how it was made."""
    buffer = BytesIO()
    Pillow.fromarray(gain_map.codes).save(buffer, "JPEG", quality=_MAP_QUALITY, subsampling=0)
    plain = _jpegfile.parts(buffer.getvalue())
    packet = _xmp.for_output(b"", extra)
    if options.map_xmp:
        packet = _xmp.described(packet, _HDRGM, "hdrgm", _gainmap.attributes(gain_map))
    head = [_segment(APP1, _jpegfile.XMP, packet)] if packet else []
    head.append(Segment(APP2, _jpegfile.ISO_21496 + _gainmap.packed(gain_map)))
    return _jpegfile.joined([*plain.head[:1], *head, *plain.head[1:]], plain.picture)


def _directory(packet: bytes, size: int) -> bytes:
    """The XMP of the base, with the older list of the two pictures added."""
    items = "".join(
        f'<rdf:li rdf:parseType="Resource"><Container:Item xmlns:Item="{_CONTAINER}item/" Item:Semantic="{meaning}"'
        f' Item:Mime="image/jpeg"{length}/></rdf:li>'
        for meaning, length in (("Primary", ""), ("GainMap", f' Item:Length="{size}"'))
    )
    listed = f'<Container:Directory xmlns:Container="{_CONTAINER}"><rdf:Seq>{items}</rdf:Seq></Container:Directory>'
    return _xmp.described(packet, _HDRGM, "hdrgm", {"Version": "1.0"}, listed)


def _index(first: int, second: int, offset: int) -> bytes:
    """The MP index: sizes of the two pictures, and where the second begins."""
    entries = struct.pack(">IIIHH", _PRIMARY, first, 0, 0, 0) + struct.pack(">IIIHH", 0, second, offset, 0, 0)
    head = struct.pack(">2sHI", b"MM", 42, 8)
    place = len(head) + 2 + 3 * 12 + 4
    fields = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100")  # version
    fields += struct.pack(">HHII", 0xB001, 4, 1, 2)  # number of pictures
    fields += struct.pack(">HHII", 0xB002, 7, len(entries), place)
    return _jpegfile.MPF + head + struct.pack(">H", 3) + fields + struct.pack(">I", 0) + entries


def _segment(marker: int, prefix: bytes, content: bytes) -> Segment:
    if len(prefix) + len(content) > _jpegfile.MOST:
        raise WriteError("the XMP of this picture is too long to be added to", hint="leave --xmp out")
    return Segment(marker, prefix + content)


def _replaced(segment: Segment) -> bool:
    """Whether a segment speaks of further pictures in the file, which do not come along."""
    return segment.marker == APP2 and segment.content.startswith((_jpegfile.MPF, _jpegfile.ISO_21496))


def _without_list(segment: Segment) -> Segment:
    """The segment without the list, in XMP, of further pictures and films in the file."""
    is_xmp = segment.marker == APP1 and segment.content.startswith(_jpegfile.XMP)
    return Segment(APP1, _LISTED.sub(b"", segment.content)) if is_xmp else segment


def _personal(segment: Segment) -> bool:
    """Whether a segment says something about the picture that decoding does not need."""
    needed = segment.marker in (0xE0, 0xEE) or segment.content.startswith(_jpegfile.ICC)  # JFIF, Adobe
    return segment.marker == _jpegfile.COM or (segment.is_app and not needed)


def _after_exif(head: list[Segment]) -> int:
    """The place after the leading JFIF, EXIF and XMP segments."""
    return next((i for i, segment in enumerate(head) if segment.marker not in (0xE0, APP1)), len(head))
