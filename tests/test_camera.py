"""The virtual camera: geometry, exposure, response curves, noise and mosaics obey their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli import camera, sensor


def test_a_view_of_a_uniform_panorama_is_uniform() -> None:
    view = camera.perspective(np.full((64, 128, 3), 0.7, np.float32), yaw=33, pitch=20, fov=80, width=48, height=36)
    np.testing.assert_allclose(view, 0.7, atol=1e-6)


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (90, 0), (-120, 30), (179, -40)])
def test_the_middle_of_a_view_looks_where_it_was_pointed(yaw: float, pitch: float) -> None:
    rows, columns = 256, 512
    latitude = 90 - (np.arange(rows) + 0.5) * 180 / rows
    longitude = (np.arange(columns) + 0.5) * 360 / columns - 180
    panorama = np.zeros((rows, columns, 3), np.float32)
    panorama[..., 0], panorama[..., 1] = longitude[None], latitude[:, None]
    middle = camera.perspective(panorama, yaw=yaw, pitch=pitch, fov=60, width=33, height=25)[12, 16]
    np.testing.assert_allclose(middle[:2], (yaw, pitch), atol=0.05)


def test_the_edge_of_a_view_is_half_the_field_of_view_away() -> None:
    columns = 1024
    longitude = (np.arange(columns, dtype=np.float32) + 0.5) * 360 / columns - 180
    panorama = np.broadcast_to(longitude[None, :, None], (512, columns, 3)).copy()
    view = camera.perspective(panorama, yaw=0, pitch=0, fov=90, width=401, height=3)
    edge = np.degrees(np.arctan(200 / (401 / 2)))
    np.testing.assert_allclose(view[1, [0, -1], 0], [-edge, edge], atol=0.1)


@given(seed=st.integers(0, 10**6), bent=st.booleans())
@settings(max_examples=50, deadline=None)
def test_response_curves_rise_from_0_to_1_and_have_an_inverse(seed: int, *, bent: bool) -> None:
    rng = np.random.default_rng(seed)
    curve = camera.random_curve(rng)
    curve = camera.bent(curve, rng) if bent else curve
    assert curve.codes[0] == 0 and curve.codes[-1] == 1
    assert (np.diff(curve.codes) >= 0).all(), f"seed {seed}: falls somewhere"
    light = np.linspace(0.01, 0.95, 50, dtype=np.float32)
    back = curve.inverse(curve(light))
    assert np.abs(np.log2(back / light)).max() < 0.12, f"seed {seed}: inverse is off"


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_exposure_clips_the_share_it_was_asked_for(share: float) -> None:
    scene = np.random.default_rng(0).lognormal(0, 1, (200, 300, 3)).astype(np.float32)
    clipped = (scene * camera.exposure_for(scene, share)).max(axis=2) >= 1
    assert clipped.mean() == pytest.approx(share, abs=1e-3)


def test_sensor_noise_has_the_variance_it_declares() -> None:
    light = np.full((400, 400), 0.3, np.float32)
    noise = camera.sensor_noise(light, shot=0.002, read=0.01, rng=np.random.default_rng(0))
    assert float(noise.var()) == pytest.approx(0.002 * 0.3 + 0.01**2, rel=0.02)
    assert abs(float(noise.mean())) < 3e-4


@pytest.mark.parametrize("kind", camera.KINDS)
def test_photographs_of_one_seed_are_the_same(kind: camera.Kind) -> None:
    light = np.random.default_rng(1).random((64, 80, 3), np.float32) * 1.2
    shots = [
        camera.photograph(light, camera.random_curve(rng), kind, rng)
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]
    np.testing.assert_array_equal(*shots)
    assert shots[0].dtype == np.uint8 and shots[0].shape == light.shape


def test_a_clean_photograph_is_the_curve_rounded() -> None:
    light = np.linspace(0, 1.5, 3 * 64 * 4, dtype=np.float32).reshape(64, 4, 3)
    rng = np.random.default_rng(2)
    curve = camera.random_curve(rng)
    expected = 255 * np.interp(np.clip(light, 0, 1), np.linspace(0, 1, 4097) ** 2, curve.codes)
    difference = np.abs(camera.photograph(light, curve, "clean", rng) - expected)
    assert difference.max() <= 0.6, f"differs by {difference.max():.2f} codes"


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_noiseless_mosaic_gives_the_scene_back_through_the_canonical_feed(bits: int) -> None:
    rng = np.random.default_rng(3)
    model = camera.random_sensor(rng, bits=bits)
    quiet = camera.SensorModel(model.balance, model.matrix, model.black, model.bits, shot=0, read=0)
    scene = np.kron(rng.uniform(0.2, 1, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.float32)
    mosaic = camera.record(scene, quiet, 0.02, rng)
    planes = sensor.camera_linear(mosaic)
    rgb = np.stack([planes[2], (planes[1] + planes[3]) / 2, planes[0]], axis=-1)
    truth = scene[::2, ::2]
    unclipped = mosaic.counts.reshape(24, 2, 32, 2).max(axis=(1, 3)) < 0.9 * mosaic.white
    ratio = np.median(rgb[unclipped] / truth[unclipped])
    error = np.abs(rgb / ratio - truth)[unclipped].max()
    assert error < 8 * 2.0**-bits * 4 + 1e-3, f"off by {error:.4f}"
