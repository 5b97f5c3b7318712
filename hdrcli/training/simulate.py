"""Training samples from HDR scenes through the virtual camera: more scenes out of one, photographs, mosaics."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli import camera, sensor
from hdrcli.color import LUMINANCE_709, Float32, Float64, luminance, srgb_encode, to_float
from hdrcli.tonemap.fusion import fusion

BENT = 0.6  # of the response curves follow no formula
DRAWN = 0.35  # of the scenes of mosaics are drawn on: colours and edges stronger than panoramas have

_BRIGHTEST = 60000.0
_SHARES = (0.01, 0.2)  # of the pixels that clip in a photograph
_BLOCK = 8  # side of a JPEG block
_LETTERS = list("AEHKMNRSWXZ0258#%&")
_MARGIN = 16  # around a patch while it is photographed: what sharpening and JPEG see of its surroundings


def varied(scene: Float32, rng: np.random.Generator) -> Float32:
    """Another scene out of one: mirrored, zoomed up to 1.6 times, with other hues and saturation, tinted; same size."""
    if rng.random() < 0.5:
        scene = scene[:, ::-1]
    rows, columns = scene.shape[:2]
    share = rng.uniform(0.6, 1.0)
    height, width = int(rows * share), int(columns * share)
    top, left = int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1))
    cut = np.ascontiguousarray(scene[top : top + height, left : left + width])
    zoomed = np.asarray(cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
    matrix = colour_change(rng.normal(0, 8), rng.uniform(0.5, 1.4)) * np.exp(rng.normal(0, 0.1, 3))[:, None]
    return _through(zoomed, matrix)


def colour_change(hue: float, saturation: float) -> Float64:
    """3x3 matrix on linear BT.709 RGB that turns hues by degrees about the grey axis and scales saturation.

    Grey stays as it is, and so does luminance if hues are not turned.
    """
    angle = np.radians(hue)
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * axis
    grey = np.tile(LUMINANCE_709.astype(np.float64), (3, 1))
    return np.asarray(grey + saturation * (turn - grey @ turn), np.float64)


def recoloured(scene: Float32, rng: np.random.Generator) -> Float32:
    """Hues turned far and saturation changed in two scenes of three: strong colours, which panoramas have few of."""
    if rng.random() < 1 / 3:
        return scene
    return _through(scene, colour_change(rng.normal(0, 60), rng.uniform(0.8, 3.0)))


def _through(scene: Float32, matrix: Float64) -> Float32:
    """The scene with its colours through a 3x3 matrix, none of them below zero."""
    return np.asarray(np.maximum(scene @ matrix.T.astype(np.float32), 0), np.float32)


def reflected(scene: Float32, other: Float32, rng: np.random.Generator) -> Float32:
    """A scene in which another one is reflected, 1 to 6 stops fainter: light adds, and there are more highlights."""
    return scene + np.float32(2 ** -rng.uniform(1, 6)) * other


def drawn_on(scene: Float32, rng: np.random.Generator) -> Float32:
    """Polygons, lines, stripes and letters of random light over a scene: edges harder than panoramas have."""
    rows, columns = scene.shape[:2]
    middle = float(np.median(scene)) + 1e-4
    for _ in range(rng.integers(1, 8)):
        shape = _shape(2 * rows, 2 * columns, rng)
        cover = cv2.resize(shape, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)[:, :, None] / 255
        light = middle * np.exp(rng.normal(0, 1.5) + rng.normal(0, 0.5, 3)).astype(np.float32)
        opaque = rng.random() < 0.5
        drawn = cover * light if opaque else cover * scene * (light / middle * np.float32(0.5))
        scene = np.asarray(scene * (1 - cover) + drawn, np.float32)
    return np.ascontiguousarray(scene)


def _shape(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """One shape, 0 or 255 (letters with soft edges): (rows, columns) uint8."""
    canvas = np.zeros((rows, columns), np.uint8)
    centre = rng.uniform(0, 1, 2) * (columns, rows)
    kind = rng.integers(4)
    if kind == 0:
        corners = centre + rng.normal(0, rng.uniform(10, 200), (rng.integers(3, 7), 2))
        cv2.fillPoly(canvas, [corners.astype(np.int32)], (255,))
    elif kind == 1:
        for _ in range(rng.integers(1, 12)):
            start, end = (centre + rng.normal(0, 150, (2, 2))).astype(int).tolist()
            cv2.line(canvas, start, end, (255,), int(rng.integers(1, 5)))
    elif kind == 2:
        down, across = np.mgrid[:rows, :columns]
        angle, period, reach = rng.uniform(0, np.pi), rng.uniform(4, 24), rng.uniform(30, 160)
        wave = np.sin(2 * np.pi * (across * np.cos(angle) + down * np.sin(angle)) / period)
        inside = (np.abs(across - centre[0]) < reach) & (np.abs(down - centre[1]) < reach)
        canvas[inside & (wave > 0)] = 255
    else:
        text = "".join(rng.choice(_LETTERS) for _ in range(rng.integers(2, 9)))
        font, scale, width = int(rng.integers(0, 7)), float(rng.uniform(0.6, 4)), int(rng.integers(1, 6))
        cv2.putText(canvas, text, centre.astype(int).tolist(), font, scale, (255,), width, cv2.LINE_AA)
    return canvas


@dataclass(frozen=True, slots=True)
class Photograph:
    """codes: (H, W, 3) uint8 RGB. light: (H, W, 3) linear, 1.0 where the camera clips. curve: its response."""

    codes: NDArray[np.uint8]
    light: Float32
    curve: camera.ResponseCurve


def photograph(
    scene: Float32,
    rng: np.random.Generator,
    *,
    size: int | None = None,
    kind: camera.Kind | None = None,
    shares: tuple[float, float] = _SHARES,
) -> Photograph:
    """Photographs a scene, exposed so that a random share of it clips, or a square patch of it where much clips.

    size: side of the patch; the whole scene without. kind: of the camera; each as often as the others without.
    """
    share = float(np.exp(rng.uniform(np.log(shares[0]), np.log(shares[1]))))
    light = np.minimum(scene * np.float32(camera.exposure_for(scene[::2, ::2], share)), np.float32(_BRIGHTEST))
    curve = camera.random_curve(rng)
    if rng.random() < BENT:
        curve = camera.bent(curve, rng)
    kind = kind or camera.KINDS[rng.integers(len(camera.KINDS))]
    if size is None:
        return Photograph(camera.photograph(light, curve, kind, rng), light, curve)
    top, left = where_it_clips(light >= 1, size, rng)
    above, before = max(top - _MARGIN, 0), max(left - _MARGIN, 0)
    outer = np.ascontiguousarray(light[above : top + size + _MARGIN, before : left + size + _MARGIN])
    rows, columns = slice(top - above, top - above + size), slice(left - before, left - before + size)
    codes = camera.photograph(outer, curve, kind, rng)
    return Photograph(np.ascontiguousarray(codes[rows, columns]), outer[rows, columns], curve)


def where_it_clips(clipped: NDArray[np.bool_], size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a patch on the lattice of JPEG blocks; nine in ten hold a random clipped pixel, if there is any.

    clipped: (H, W, 3).
    """
    places = np.flatnonzero(clipped.max(axis=2))
    sides = clipped.shape[:2]
    lows, highs = [0, 0], [side - size for side in sides]
    if len(places) and rng.random() < 0.9:
        pixel = np.unravel_index(places[rng.integers(len(places))], sides)
        lows = [max(int(at) - size + 1, 0) for at in pixel]
        highs = [min(int(at), high) for at, high in zip(pixel, highs, strict=True)]
    top, left = (int(rng.integers(low, high + 1)) // _BLOCK * _BLOCK for low, high in zip(lows, highs, strict=True))
    return top, left


def mosaic(scene: Float32, rng: np.random.Generator, *, bits: int | None = None) -> tuple[Float32, Float32]:
    """What a random sensor records of a scene, 0.1 to 5 % of it clipped, and the scene itself, mid-grey at 0.18.

    scene: (H, W, 3) linear, sides even. Returns (4, H/2, W/2) canonical planes and (H, W, 3) linear light.
    """
    share = float(np.exp(rng.uniform(np.log(0.001), np.log(0.05))))
    recorded = camera.record(scene, camera.random_sensor(rng, bits=bits), share, rng)
    mean = np.exp(np.mean(np.log(np.maximum(luminance(scene), 1e-6))))
    return sensor.canonical(recorded), scene * np.float32(sensor.MIDDLE_GREY / mean)


def finished(light: Float32) -> Float32:
    """The finished picture of an unclipped scene, mid-grey at 0.18: exposure fusion in steps of 8 bits, in [0, 1]."""
    return to_float(fusion(light, np.uint8))


def sheet(rows: Sequence[tuple[Float32, Float32, Float32]]) -> NDArray[np.uint8]:
    """Validation pictures for people: rows of canonical planes (4, h, w), the picture made of them, and the target."""
    shown = []
    for planes, made, target in rows:
        blue, gr, red, gb = planes
        plain = np.stack([red, (gr + gb) / 2, blue], axis=2).repeat(2, axis=0).repeat(2, axis=1)
        shown.append(np.concatenate([srgb_encode(plain.clip(0, 1)), made, target], axis=1))
    return np.asarray(np.rint(255 * np.concatenate(shown).clip(0, 1)), np.uint8)
