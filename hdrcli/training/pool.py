"""Views of HDR scenes, rendered once and kept in memory as half floats."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli import camera
from hdrcli.color import Float32
from hdrcli.layouts import Layout
from hdrcli.training import data

Float16 = NDArray[np.float16]

WIDTH, HEIGHT = 512, 384


@dataclass(frozen=True, slots=True)
class Scene:
    """One HDR scene: its name, (H, W, 3) linear pixels, and whether it is nothing but sky."""

    name: str
    pixels: Float32
    sky: bool


def read_scenes(layout: Layout) -> list[Scene]:
    """All scenes of a folder. ReadError names a file that cannot be used."""
    return [Scene(path.stem, data.read_scene(path), "puresky" in path.stem) for (path,) in layout.files]


def views(scenes: list[Scene], per_scene: int, seed: int) -> list[Float16]:
    """Random views of all scenes, (384, 512, 3) each; a sky, which looks like every other sky, gives only one."""
    rng = np.random.default_rng(seed)
    found = []
    for scene in scenes:
        for _ in range(1 if scene.sky else per_scene):
            found.append(usable(camera.random_view(scene.pixels, rng, width=WIDTH, height=HEIGHT)))
    return found


def windows(scenes: list[Scene], per_scene: int, seed: int, *, smallest: float = 1.0) -> list[Float16]:
    """Random (384, 512, 3) cut-outs of the scenes as they are: sharper than any projected view.

    smallest: they are made from scenes shrunk by a random factor from here to 1, which sharpens them further.
    """
    rng = np.random.default_rng(seed)
    found = []
    for scene in scenes:
        if scene.sky:
            continue
        for _ in range(per_scene):
            pixels = _shrunk(scene.pixels, float(rng.uniform(smallest, 1)))
            rows, columns = pixels.shape[:2]
            if rows >= HEIGHT and columns >= WIDTH:
                top, left = rng.integers(0, rows - HEIGHT + 1), rng.integers(0, columns - WIDTH + 1)
                found.append(usable(pixels[top : top + HEIGHT, left : left + WIDTH]))
    return found


def _shrunk(pixels: Float32, factor: float) -> Float32:
    if factor == 1:
        return pixels
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.float32)


def usable(view: Float32) -> Float16:
    """The view scaled to a median luminance of 0.18 and kept as half floats without infinities."""
    scaled = view * np.float32(0.18 / max(float(np.median(view)), 1e-6))
    return np.asarray(np.clip(scaled, 0, 60000), np.float16)
