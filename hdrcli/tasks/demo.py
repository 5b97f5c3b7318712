"""demo: a synthetic scene photographed twice, as RAW and as JPEG, then developed and expanded, to be looked at."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from hdrcli import camera, codecs, raw, scene, sensor
from hdrcli.camera import SensorModel
from hdrcli.codecs import dng
from hdrcli.color import BT709, Float32, rgb_to_xyz, srgb_encode
from hdrcli.files import atomic_write
from hdrcli.image import Image, Transfer
from hdrcli.infer import Compute
from hdrcli.tasks.common import model_for
from hdrcli.tasks.develop import develop_mosaic
from hdrcli.tasks.expand import expand_image
from hdrcli.tonemap import OPERATORS

JPEG_CLIPPED, RAW_CLIPPED = 0.10, 0.03  # shares of the pixels that the two exposures clip

_SENSOR = SensorModel(
    balance=np.array([1.9, 1.0, 1.6]),
    matrix=np.array([[1.60, -0.45, -0.15], [-0.15, 1.50, -0.35], [0.02, -0.45, 1.43]]),
    black=64,
    bits=10,
    shot=1e-4,
    read=4e-4,
)
_EXPOSURES = (0.0, -3.0, -6.0)  # stops, the columns of the contact sheet
_CELL = (384, 256)  # width and height of a picture on the contact sheet


def demo(folder: Path, *, width: int = 768, height: int = 512, compute: Compute | None = None) -> Iterator[str]:
    """Writes the demonstration into `folder` and says, sentence by sentence, what was done.

    demo.jpg, demo.dng and demo_reference.exr are the inputs and the truth, in units of the level at which demo.jpg
    clips; demo_hdr.exr and demo_developed.jpg are what the default models make of them; demo_sheet.png shows them all.
    """
    compute = compute or Compute()
    light = scene.render(width, height)
    gain = camera.exposure_for(light, JPEG_CLIPPED)
    reference = Image(light * np.float32(gain), Transfer.LINEAR)
    yield _write(folder / "demo_reference.exr", reference) + "the scene's light, 1.0 where demo.jpg clips"
    yield _write(folder / "demo.jpg", reference.to(Transfer.SRGB)) + f"8 bits, {JPEG_CLIPPED:.0%} of its pixels clipped"
    _write_raw(folder / "demo.dng", light)
    yield f"{folder / 'demo.dng'}: 10-bit Bayer mosaic, {RAW_CLIPPED:.0%} of its pixels clipped"

    expander, developer = model_for("expand", None), model_for("develop", None)
    picture = codecs.read(folder / "demo.jpg")
    expanded = expand_image(expander, picture, compute=compute).image
    yield _write(folder / "demo_hdr.exr", expanded) + f"demo.jpg expanded by {expander.card.name}"
    mosaic = raw.read(folder / "demo.dng")
    developed = develop_mosaic(developer, mosaic, compute=compute).image
    yield _write(folder / "demo_developed.jpg", developed) + f"demo.dng developed by {developer.card.name}"
    sheet = contact_sheet(picture, expanded, reference, developed, mosaic)
    yield _write(folder / "demo_sheet.png", sheet) + "all of them side by side"


def contact_sheet(picture: Image, expanded: Image, reference: Image, developed: Image, mosaic: sensor.Mosaic) -> Image:
    """Rows: the JPEG, its expansion and the truth at three exposures each; the RAW file, developed and plain."""
    rows = [
        _exposures(name, image.to(Transfer.LINEAR).pixels)
        for name, image in (("demo.jpg", picture), ("expanded", expanded), ("truth", reference))
    ]
    blue, gr, red, gb = sensor.canonical(mosaic)
    plain = OPERATORS["none"](np.stack([red, (gr + gb) / 2, blue], axis=-1))
    grey = sensor.MIDDLE_GREY / np.exp(np.mean(np.log(np.maximum(reference.pixels.mean(axis=2), 1e-4))))
    fused = OPERATORS["fusion"](reference.pixels * np.float32(grey))
    last = (("developed", developed.pixels), ("demo.dng without tone mapping", plain), ("truth, fused", fused))
    rows.append([_cell(label, pixels) for label, pixels in last])
    return Image(np.concatenate([np.concatenate(row, axis=1) for row in rows]), Transfer.SRGB)


def _exposures(name: str, linear: Float32) -> Sequence[Float32]:
    return [
        _cell(f"{name}, {stops:+.0f} EV", srgb_encode(np.clip(linear * np.float32(2.0**stops), 0, 1)))
        for stops in _EXPOSURES
    ]


def _cell(label: str, encoded: Float32) -> Float32:
    """A picture at the sheet's size with its name on it."""
    small = np.rint(255 * cv2.resize(encoded, _CELL, interpolation=cv2.INTER_AREA)).astype(np.uint8)
    small[:26] //= 3
    cv2.putText(small, label, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(small / np.float32(255), np.float32)


def _write(path: Path, image: Image) -> str:
    with atomic_write(path) as part:
        codecs.write(image, part, str(codecs.format_of(path)))
    return f"{path}: "


def _write_raw(path: Path, light: Float32) -> None:
    mosaic = camera.record(light, _SENSOR, RAW_CLIPPED, np.random.default_rng(0))
    balanced_from_xyz = np.linalg.inv(rgb_to_xyz(BT709) @ _SENSOR.matrix)
    path.parent.mkdir(parents=True, exist_ok=True)
    dng.write(
        path,
        mosaic.counts.astype(np.uint16),
        black=int(_SENSOR.black),
        white=int(mosaic.white),
        as_shot_neutral=tuple(1 / _SENSOR.balance),
        color_matrix=balanced_from_xyz / _SENSOR.balance[:, None],
        bits=_SENSOR.bits,
    )
