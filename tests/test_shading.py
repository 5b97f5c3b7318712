"""Lens shading by a DNG's own map, and highlights that stay neutral."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli import raw
from hdrcli.codecs import _shading, dng
from hdrcli.codecs._shading import ShadingMap
from hdrcli.sensor import camera_linear, canonical, native

SIZE = (96, 128)
BLACK, WHITE = 64, 1023
NEUTRAL = (0.5, 1.0, 0.625)
TO_CAMERA = np.array([[0.902, -0.289, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]])


def maps(size: tuple[int, int] = SIZE) -> list[ShadingMap]:
    """One map for each place of the Bayer block, as phones write them, stronger towards the corners and for red."""
    y, x = np.mgrid[0:13, 0:17]
    radius = (((y / 6 - 1) ** 2 + (x / 8 - 1) ** 2) / 2).astype(np.float32)
    return [
        ShadingMap(
            (row, column, *size), (2, 2), (0.0, 0.0), (1 / 12, 1 / 16), np.float32(1) + np.float32(tint) * radius
        )
        for row, column, tint in ((0, 0, 1.2), (0, 1, 0.9), (1, 0, 0.9), (1, 1, 0.7))
    ]


def neutral_scene(level: float = 0.3) -> np.ndarray:
    """(H, W) light on the sensor of a grey scene with a soft structure, in parts of white."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    camera = np.array(NEUTRAL)[np.array([[0, 1], [1, 2]])]
    grey = level * (1 + 0.2 * np.sin(x / 9) * np.cos(y / 7))
    return np.asarray(grey * np.tile(camera, (SIZE[0] // 2, SIZE[1] // 2)))


def record(path: Path, light: np.ndarray, shading: list[ShadingMap]) -> Path:
    values = np.clip(BLACK + light * (WHITE - BLACK), 0, WHITE)
    levels = {"black": BLACK, "white": WHITE, "as_shot_neutral": NEUTRAL, "color_matrix": TO_CAMERA}
    dng.write(path, np.rint(values).astype(np.uint16), shading=shading, **levels)
    return path


def test_shaded_and_unshaded_scenes_look_alike(tmp_path: Path) -> None:
    light = neutral_scene()
    factors = _shading.gains(maps(), SIZE)
    assert factors.max() > 1.8
    plain = camera_linear(raw.read(record(tmp_path / "a.dng", light, [])))
    mended = camera_linear(raw.read(record(tmp_path / "b.dng", light / factors, maps())))
    np.testing.assert_allclose(mended, plain, atol=0.006)
    shaded = camera_linear(raw.read(record(tmp_path / "c.dng", light / factors, [])))
    assert np.abs(shaded - plain).max() > 0.1, "without its map the picture is dark and tinted in the corners"


@pytest.mark.parametrize("pattern", dng.PATTERNS)
def test_maps_follow_the_frame_in_every_phase(tmp_path: Path, pattern: str) -> None:
    counts = np.full(SIZE, 400, np.uint16)
    counts[::8, ::8] = 200
    levels = {"black": BLACK, "white": WHITE, "as_shot_neutral": NEUTRAL, "color_matrix": TO_CAMERA}
    dng.write(tmp_path / "x.dng", counts, pattern=pattern, shading=maps(), **levels)
    mosaic = raw.read(tmp_path / "x.dng")
    top, left = divmod(pattern.index("R"), 2)
    inside = mosaic.counts[top : top + SIZE[0], left : left + SIZE[1]]
    expected = np.minimum(BLACK + (counts - float(BLACK)) * _shading.gains(maps(), SIZE), WHITE)
    np.testing.assert_allclose(inside, expected, atol=1e-3)


def test_native_feed_keeps_the_counts(tmp_path: Path) -> None:
    light = neutral_scene()
    with_map, without = (record(tmp_path / f"{len(m)}.dng", light, m) for m in (maps(), []))
    np.testing.assert_array_equal(
        native(raw.read(with_map, sensor="native")), native(raw.read(without, sensor="native"))
    )


def test_clipped_highlights_in_the_corners_stay_neutral(tmp_path: Path) -> None:
    light = neutral_scene()
    light[:24, :24] = 3.0
    light[40:60, 50:70] = 3.0
    factors = _shading.gains(maps(), SIZE)
    planes = canonical(raw.read(record(tmp_path / "a.dng", light / factors, maps())))
    blue, gr, red, gb = planes
    for place in (np.s_[2:10, 2:10], np.s_[22:28, 27:33]):
        colours = np.stack([red[place], (gr[place] + gb[place]) / 2, blue[place]])
        spread = np.ptp(colours, axis=0) / colours.mean(axis=0)
        assert spread.max() < 0.02, f"{spread.max():.3f} at {place}: a clipped highlight is no colour"


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**16))
def test_gains_are_linear_between_the_points(down: int, across: int, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0.5, 4, (down, across)).astype(np.float32)
    spacing = (1 / max(down - 1, 1), 1 / max(across - 1, 1))
    item = ShadingMap((0, 0, 40, 60), (1, 1), (0.0, 0.0), spacing, points)
    found = _shading.gains([item], (40, 60))
    y = np.clip((np.arange(40) + 0.5) / 40 / spacing[0], 0, down - 1).astype(np.float32)
    x = np.clip((np.arange(60) + 0.5) / 60 / spacing[1], 0, across - 1).astype(np.float32)
    grid = np.meshgrid(x, y)
    expected = cv2.remap(points.astype(np.float64), grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(found, expected, atol=0.12)  # OpenCV places samples at 32nds of a pixel


def test_lists_are_read_as_written_and_damage_is_passed_over() -> None:
    whole = _shading.packed(maps())
    for found, made in zip(_shading.parse(whole), maps(), strict=True):
        assert found[:2] == made[:2]
        np.testing.assert_allclose([*found.origin, *found.spacing], [*made.origin, *made.spacing])
        np.testing.assert_array_equal(found.gains, made.gains)
    other = struct.pack(">5I", 1, 4, 0x01030000, 0, 8) + bytes(8)
    assert list(_shading.parse(other)) == []
    assert len(list(_shading.parse(other[:4] + other[4:] + whole[4:]))) == 4
    assert len(list(_shading.parse(whole[:-8]))) == 3
    for place in range(0, 120, 4):
        spoilt = whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :]
        assert len(list(_shading.parse(spoilt))) <= 4
    assert list(_shading.parse(b"")) == []
