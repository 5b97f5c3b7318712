"""Small pictures for a report: light as codes that a browser can expose, and errors in false colours."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from hdrcli.color import Float32, luminance, srgb_decode
from hdrcli.image import Transfer
from hdrcli.protocols import Pair

REFERENCE = "reference"
SIDE = 400  # pixels of the longer side
REACH = 3  # stops of error at the ends of the colour scale
COLOURS = ((38, 70, 200), (110, 170, 240), (235, 235, 235), (245, 160, 90), (190, 30, 30))  # too dark to too bright

_LEAST, _SPAN = -14.0, 18.0  # the darkest level shown, in stops from 1.0, and the most that codes cover


@dataclass(frozen=True)
class Shots:
    """One picture by all systems. low, high: log2 of the light at codes 0 and 255. light, errors: data URIs."""

    low: float
    high: float
    light: dict[str, str]
    errors: dict[str, str]


def linear_shots(pairs: Mapping[str, Pair]) -> Shots:
    """Of pictures that are linear light; all on the scale of the reference."""
    reference = next(iter(pairs.values())).reference
    pictures = {REFERENCE: _small(reference)}
    pictures |= {system: _small(pair.prediction) for system, pair in pairs.items()}
    top = float(np.log2(max(float(max(p.max() for p in pictures.values())), 2.0**_LEAST)))
    bottom = float(np.log2(max(float(np.percentile(pictures[REFERENCE], 0.5)), 2.0**_LEAST)))
    low = min(max(bottom, top - _SPAN), top - 1)
    light = {name: _uri(_codes(picture, low, top), quality=93) for name, picture in pictures.items()}
    floor = np.float32(2.0**low)
    errors = {
        system: _uri(_false_colours(pictures[system], pictures[REFERENCE], floor), quality=80) for system in pairs
    }
    return Shots(low, top, light, errors)


def display_shots(pairs: Mapping[str, Pair]) -> Shots:
    """Of sRGB-encoded pictures."""
    decoded = {
        system: pair._replace(prediction=srgb_decode(pair.prediction), reference=srgb_decode(pair.reference))
        for system, pair in pairs.items()
    }
    return linear_shots(decoded)


KEEP = {Transfer.LINEAR: linear_shots, Transfer.SRGB: display_shots}


def _small(picture: Float32) -> Float32:
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def _codes(light: Float32, low: float, high: float) -> np.ndarray:
    stops = np.log2(np.maximum(light, np.float32(2.0**low)))
    return np.clip(np.rint(255 * (stops - low) / (high - low)), 0, 255).astype(np.uint8)


def _false_colours(picture: Float32, reference: Float32, floor: np.float32) -> np.ndarray:
    """Error of luminance in stops as a colour; light below `floor` counts as `floor`."""
    found, wanted = (np.maximum(luminance(light), floor) for light in (picture, reference))
    place = (np.clip(np.log2(found / wanted), -REACH, REACH) + REACH) / (2 * REACH) * (len(COLOURS) - 1)
    steps = np.arange(len(COLOURS))
    channels = [np.interp(place, steps, [colour[channel] for colour in COLOURS]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _uri(picture: np.ndarray, *, quality: int) -> str:
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
