"""The mosaic: packing, phases, rotation, levels, colour and the two feeds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli import camera, sensor
from hdrcli.sensor import Mosaic, surface_balance

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
TURNS = {
    1: lambda picture: picture,
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: np.rot90(picture, 2).swapaxes(0, 1),
    8: np.rot90,
}
D750 = np.array([[0.902, -0.289, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]])
D750_TO_BT709 = np.array([[1.6468, -0.4498, -0.1970], [-0.1824, 1.5973, -0.4149], [0.0120, -0.4379, 1.4260]])


def mosaic_of(counts: np.ndarray, **changes: Any) -> Mosaic:
    """A mosaic of an ideal camera: black 0, white 1, colours already those of BT.709."""
    height, width = counts.shape
    plain = Mosaic(
        counts=counts.astype(np.float32),
        black=np.zeros((2, 2), np.float32),
        white=1.0,
        balance=np.ones(3),
        matrix=np.eye(3),
        crop=(0, 0, height, width),
    )
    return replace(plain, **changes)


def sampled(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) to its RGGB mosaic."""
    counts = rgb[..., 1].copy()
    counts[::2, ::2], counts[1::2, 1::2] = rgb[::2, ::2, 0], rgb[1::2, 1::2, 2]
    return counts.astype(np.float32)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_unpack_is_the_inverse_of_pack(rows: int, columns: int, seed: int) -> None:
    counts = np.random.default_rng(seed).random((2 * rows, 2 * columns), np.float32)
    planes = sensor.pack(counts)
    np.testing.assert_array_equal(sensor.unpack(planes), counts)
    np.testing.assert_array_equal(planes[:, 0, 0], [counts[1, 1], counts[0, 1], counts[0, 0], counts[1, 0]])


@given(st.sampled_from(PATTERNS), st.integers(2, 9), st.integers(2, 9))
def test_align_brings_red_to_the_corner_and_loses_nothing(pattern: str, height: int, width: int) -> None:
    counts = np.arange(height * width, dtype=np.float32).reshape(height, width)
    colours = np.array(list(pattern)).reshape(2, 2)[np.arange(height)[:, None] % 2, np.arange(width) % 2]
    aligned, (top, left, rows, columns) = sensor.align(counts, pattern, (0, 0, height, width))
    assert aligned.shape[0] % 2 == aligned.shape[1] % 2 == 0
    np.testing.assert_array_equal(aligned[top : top + rows, left : left + columns], counts)
    for plane, colour in zip(sensor.pack(aligned), "BGRG", strict=True):
        assert {colours.ravel()[int(value)] for value in plane.ravel()} == {colour}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_cuts_and_turns_like_numpy(orientation: int) -> None:
    picture = np.random.default_rng(0).random((8, 10, 3), np.float32)
    mosaic = mosaic_of(np.zeros((8, 10)), crop=(1, 2, 5, 7), orientation=orientation)
    np.testing.assert_array_equal(sensor.upright(picture, mosaic), TURNS[orientation](picture[1:6, 2:9]))


@pytest.mark.parametrize(("aspect", "shape"), [(1.5, (6, 12, 3)), (0.5, (12, 8, 3))])
def test_upright_makes_pixels_square(aspect: float, shape: tuple[int, ...]) -> None:
    picture = np.full((6, 8, 3), 0.25, np.float32)
    squared = sensor.upright(picture, mosaic_of(np.zeros((6, 8)), pixel_aspect=aspect))
    assert squared.shape == shape
    np.testing.assert_allclose(squared, 0.25)


def test_upright_stretches_before_it_turns() -> None:
    turned = sensor.upright(np.zeros((6, 8, 3), np.float32), mosaic_of(np.zeros((6, 8)), pixel_aspect=2, orientation=6))
    assert turned.shape == (16, 6, 3)


@given(st.floats(0.3, 1.0), st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_clip_levels_finds_where_the_counts_pile_up(level: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    light = np.exp(rng.normal(-2.0, 1.2, (200, 200)))
    black, white = np.array([[60, 64], [64, 70]], np.float32), 4095.0
    counts = np.rint(np.tile(black, (100, 100)) + np.minimum(light, level) * (white - 64)).astype(np.float32)
    found = (sensor.clip_levels(counts, black, white) - black) / (white - black)
    np.testing.assert_allclose(found, level, atol=0.02)


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0])
def test_clip_levels_takes_no_bright_surface_for_clipping(spread: float) -> None:
    rng = np.random.default_rng(1)
    counts = np.rint(1023 * np.minimum(0.5 * np.exp(rng.normal(0, spread, (200, 200)) - 2 * spread), 0.9 - 1e-3))
    counts *= rng.normal(1, 0.03, counts.shape)  # shot noise
    levels = sensor.clip_levels(counts.astype(np.float32), np.zeros((2, 2), np.float32), 1023.0)
    np.testing.assert_array_equal(levels, 1023)


def test_highlights_stay_neutral_where_channels_clip_below_the_white_level() -> None:
    balance = np.array([1.9, 1.0, 1.7])
    white_sheet = np.full((64, 64, 3), 2.0) / balance  # beyond what any channel can hold
    clip = np.array([[1.0, 0.95], [0.95, 0.91]], np.float32)
    counts = np.minimum(sampled(white_sheet), np.tile(clip, (32, 32)))
    blue, gr, red, gb = sensor.camera_linear(mosaic_of(counts, balance=balance, clip=clip))[:, 16, 16]
    np.testing.assert_allclose([gb, gr, blue], red, rtol=1e-4)
    plain = sensor.camera_linear(mosaic_of(counts, balance=balance))[:, 16, 16]
    assert plain[2] > 1.3 * plain[3], "without the clipping levels the sheet would be magenta"


def test_camera_linear_removes_levels_and_applies_balance_and_matrix() -> None:
    rgb = np.random.default_rng(2).uniform(0.05, 0.4, (1, 1, 3)) * np.ones((8, 8, 1))
    balance, black, white = np.array([2.0, 1.0, 1.5]), np.array([[10, 20], [30, 40]], np.float32), 1000.0
    camera = rgb @ np.linalg.inv(D750_TO_BT709).T / balance
    counts = np.tile(black, (4, 4)) + sampled(camera) * (white - np.tile(black, (4, 4)))
    mosaic = mosaic_of(counts, black=black, white=white, balance=balance, matrix=D750_TO_BT709)
    blue, gr, red, gb = sensor.camera_linear(mosaic)
    for plane, expected in ((red, rgb[..., 0]), (gb, rgb[..., 1]), (gr, rgb[..., 1]), (blue, rgb[..., 2])):
        np.testing.assert_allclose(plane, expected[0, 0], rtol=2e-5)


def test_canonical_keeps_negative_noise_and_the_difference_of_the_greens() -> None:
    counts = np.tile(np.array([[0.3, 0.32], [0.28, 0.3]], np.float32), (8, 8))
    counts[0, 0] = -0.01
    blue, gr, red, gb = sensor.canonical(mosaic_of(counts))
    assert red[0, 0] < 0
    np.testing.assert_allclose((gr - gb)[4, 4] / red[4, 4], 0.04 / 0.3, rtol=1e-4)
    assert blue.shape == (8, 8)


def test_canonical_puts_middle_grey_at_its_place_and_ev_doubles_it() -> None:
    mosaic = mosaic_of(np.full((32, 32), 0.02))
    np.testing.assert_allclose(sensor.canonical(mosaic), 0.18, rtol=1e-5)
    np.testing.assert_allclose(sensor.canonical(mosaic, ev=1.0), 0.36, rtol=1e-5)


def test_a_clipping_level_at_the_white_level_changes_nothing() -> None:
    mosaic = mosaic_of(np.random.default_rng(3).random((32, 32)))
    told = replace(mosaic, clip=np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(sensor.canonical(mosaic), sensor.canonical(told))


@pytest.mark.parametrize(("bits", "factor"), [(10, 1.0), (12, 1023 / 4095), (14, 1023 / 16383)])
def test_native_is_ten_bit_counts_over_1020(bits: int, factor: float) -> None:
    counts = np.arange(16, dtype=np.float32).reshape(4, 4)
    planes = sensor.native(mosaic_of(counts, bits=bits))
    np.testing.assert_allclose(planes, sensor.pack(counts) * factor / 1020, rtol=1e-6)


@pytest.mark.parametrize("balance", [(2.0, 1.0, 1.6), (1.2, 1.0, 2.6), (1.0, 1.0, 1.0)])
def test_grey_world_finds_the_balance_of_a_mostly_grey_scene(balance: tuple[float, ...]) -> None:
    rng = np.random.default_rng(4)
    scene = np.repeat(np.repeat(rng.uniform(0.05, 0.5, (20, 20, 1)) * np.ones(3), 16, 0), 16, 1)
    scene[:100, :100] *= (0.2, 0.5, 1.0)  # a blue surface
    estimate = sensor.grey_world(mosaic_of(sampled(scene / balance)))
    assert estimate is not None
    np.testing.assert_allclose(np.log2(estimate / balance), 0, atol=0.05)


def test_grey_world_says_when_nothing_can_be_judged() -> None:
    assert sensor.grey_world(mosaic_of(np.zeros((64, 64)))) is None
    assert sensor.grey_world(mosaic_of(np.ones((64, 64)))) is None


def test_from_xyz_agrees_with_libraw() -> None:
    matrix = sensor.from_xyz(D750)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(matrix, D750_TO_BT709, atol=5e-4)


def test_a_sensor_that_is_canonical_already_is_fed_as_it_is() -> None:
    counts = np.random.default_rng(0).uniform(0, 0.9, (12, 16)).astype(np.float32)
    black, matrix = np.zeros((2, 2), np.float32), np.eye(3)
    mosaic = sensor.Mosaic(counts, black, 1.0, np.ones(3), matrix, (0, 0, 12, 16))
    np.testing.assert_allclose(sensor.unpack(sensor.camera_linear(mosaic)), counts, atol=1e-6)


def test_a_large_warm_surface_is_made_grey() -> None:
    rng = np.random.default_rng(4)
    wall = np.linspace(0.3, 0.5, 96)[:, None] * np.full((64, 96, 3), [1.2, 1.0, 0.9])
    wall[:20] = rng.uniform(0.1, 0.5, (20, 96, 3))
    sensor = camera.SensorModel(np.array([2.0, 1.0, 1.5]), np.eye(3), 0.0, 12, 1e-6, 1e-6)
    mosaic = camera.record(wall.astype(np.float32), sensor, 0.001, rng)
    found = surface_balance(mosaic)
    assert found is not None
    np.testing.assert_allclose(found, [2.0 / 1.2, 1.0, 1.5 / 0.9], rtol=0.01)


@pytest.mark.parametrize("colour", [(1.0, 1.0, 1.0), (0.9, 1.0, 1.2), (2.0, 1.0, 0.4)], ids=("grey", "cold", "wood"))
def test_surfaces_that_are_grey_cold_or_coloured_say_nothing(colour: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(4)
    wall = np.linspace(0.2, 0.3, 96)[:, None] * np.full((64, 96, 3), colour)
    sensor = camera.SensorModel(np.array([2.0, 1.0, 1.5]), np.eye(3), 0.0, 12, 1e-6, 1e-6)
    assert surface_balance(camera.record(wall.astype(np.float32), sensor, 0.001, rng)) is None
