"""A virtual camera: HDR scenes to the pictures that real cameras would have taken of them.

HDR -> (LDR, HDR) pairs for `expand` and HDR -> (mosaic, linear) pairs for `develop`. Everything random comes from the
`numpy.random.Generator` that is passed in, so one seed drives a whole data set.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from hdrcli.color import Float32, Float64
from hdrcli.sensor import Mosaic

Kind = Literal["noisy", "clean", "phone"]
KINDS: tuple[Kind, ...] = ("noisy", "clean", "phone")

_STEPS = 4096
_LIGHT = np.linspace(0, 1, _STEPS + 1) ** 2  # where response curves are tabulated: dense in the shadows


def perspective(panorama: Float32, *, yaw: float, pitch: float, fov: float, width: int, height: int) -> Float32:
    """The view of a pinhole camera in an equirectangular panorama.

    panorama: (H, W, 3), W = 2 H, longitude left to right. yaw, pitch: direction in degrees; fov: horizontal field of
    view in degrees. Returns (height, width, 3) in the panorama's units.
    """
    focal = width / 2 / np.tan(np.radians(fov) / 2)
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    tilt = np.radians(pitch)
    up = -y * np.cos(tilt) + focal * np.sin(tilt)
    ahead = y * np.sin(tilt) + focal * np.cos(tilt)
    longitude = np.arctan2(x, ahead) + np.radians(yaw)
    latitude = np.arctan2(up, np.hypot(x, ahead))
    rows, columns = panorama.shape[:2]
    map_x = ((longitude / (2 * np.pi) + 0.5) % 1.0) * columns - 0.5
    map_y = np.clip((0.5 - latitude / np.pi) * rows - 0.5, 0, rows - 1)
    wrapped = np.concatenate([panorama[:, -1:], panorama, panorama[:, :1]], axis=1)
    view = cv2.remap(
        wrapped, (map_x + 1).astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    return np.asarray(view, np.float32)


def random_view(scene: Float32, rng: np.random.Generator, *, width: int, height: int) -> Float32:
    """A random view of a scene: perspective if it is a panorama (twice as wide as high), otherwise a random crop."""
    rows, columns = scene.shape[:2]
    if columns == 2 * rows:
        yaw, pitch, fov = rng.uniform(-180, 180), np.clip(rng.normal(0, 15), -45, 45), rng.uniform(50, 100)
        view = perspective(scene, yaw=yaw, pitch=float(pitch), fov=fov, width=width, height=height)
    else:
        scale = rng.uniform(0.6, 1.0) * min(columns / width, rows / height)
        w, h = max(int(width * scale), 1), max(int(height * scale), 1)
        left, top = rng.integers(0, columns - w + 1), rng.integers(0, rows - h + 1)
        method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
        cut = scene[top : top + h, left : left + w]
        view = np.asarray(cv2.resize(cut, (width, height), interpolation=method), np.float32)
    return np.ascontiguousarray(view[:, ::-1]) if rng.random() < 0.5 else view


def exposure_for(scene: Float32, clipped_share: float) -> float:
    """The gain at which `clipped_share` of the pixels of (H, W, C) have a channel at or above 1."""
    return float(1 / max(np.quantile(scene.max(axis=2), 1 - clipped_share), 1e-8))


# ---------------------------------------------------------------------------------------------- response curves


@dataclass(frozen=True, slots=True)
class ResponseCurve:
    """A camera's response: light in [0, 1] to code values in [0, 1], rising, f(0) = 0 and f(1) = 1.

    codes: (4097,) response at light (i / 4096)^2.
    """

    codes: Float64

    def __call__(self, light: Float32) -> Float32:
        index = np.rint(np.sqrt(light) * np.float32(_STEPS)).astype(np.int32)
        return self.codes.astype(np.float32)[index]

    def inverse(self, codes: Float32) -> Float32:
        """Code values in [0, 1] to light in [0, 1]."""
        return np.interp(codes, self.codes, _LIGHT).astype(np.float32)


def random_curve(rng: np.random.Generator) -> ResponseCurve:
    """A random response: power laws, sRGB, Rec.709, HDRCNN's sigmoids and logarithms, half of them bent like film.

    The sigmoids are those of Eilertsen et al. 2017, (1 + s) h^n / (h^n + s) with n about 0.9 and s about 0.6, spread
    further than there.
    """
    x = _LIGHT
    family = rng.choice(5, p=[0.25, 0.07, 0.05, 0.48, 0.15])
    if family == 0:
        y = x ** (1 / rng.uniform(1.5, 2.6))
    elif family == 1:
        y = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    elif family == 2:
        y = np.where(x < 0.018, 4.5 * x, 1.099 * x**0.45 - 0.099)
    elif family == 3:
        n, s = np.clip(rng.normal(0.9, 0.13), 0.6, 1.25), np.exp(rng.normal(np.log(0.6), 0.3))
        y = (1 + s) * x**n / (x**n + s)
    else:
        k = np.exp(rng.uniform(np.log(3), np.log(50)))
        y = np.log1p(k * x) / np.log1p(k)
    if rng.random() < 0.5:
        y = _film(y, rng, strength=rng.uniform(0, 0.8))
    y = np.maximum.accumulate(y - y[0])
    return ResponseCurve(y / y[-1])


def bent(curve: ResponseCurve, rng: np.random.Generator) -> ResponseCurve:
    """A rising curve near another one, as measured curves are near formulas.

    The steps of its inverse are multiplied by smooth noise; in two of five, the darkest light hardly gives codes.
    """
    codes = np.linspace(0, 1, 1021)
    waves = np.arange(1, 7)
    sizes = rng.normal(0, rng.uniform(0, 0.5), len(waves)) / np.sqrt(waves)
    noise = np.cos(np.pi * np.outer((codes[1:] + codes[:-1]) / 2, waves)) @ sizes
    steps = np.diff(np.interp(codes, curve.codes, _LIGHT)) * np.exp(noise) + 1e-9
    light = np.concatenate([[0.0], np.cumsum(steps)])
    light /= light[-1]
    if rng.random() < 0.4:
        light += _log_uniform(rng, 2e-4, 0.015) * -np.expm1(-255 * codes / rng.uniform(0.5, 8))
    return ResponseCurve(np.interp(_LIGHT, light / light[-1], codes))


def _film(y: Float64, rng: np.random.Generator, *, strength: float) -> Float64:
    """Bends a curve with a toe, a shoulder and a smooth wave, and keeps it rising."""
    toe, shoulder = rng.uniform(-0.25, 0.8) * strength, rng.uniform(-0.25, 0.8) * strength
    bent = y + toe * (y**2 - y) * (1 - y) + shoulder * (y - y**2) * y
    wave = sum(rng.normal(0, 0.02 / k) * strength * np.sin(np.pi * k * y) for k in (1, 2, 3))
    slopes = np.maximum(np.diff(bent + wave), 0.08 * np.diff(y))
    return np.concatenate([[0.0], np.cumsum(slopes)])


# ------------------------------------------------------------------------------------------ 8-bit pictures


def photograph(light: Float32, curve: ResponseCurve, kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """An 8-bit picture of exposed light: (H, W, 3) linear RGB, clipping at 1, to (H, W, 3) uint8 RGB.

    noisy: shot and read noise before the curve, then 8-bit rounding. clean: rounding alone. phone: noise, denoised,
    sharpened, and coded as JPEG of quality 60 to 100.
    """
    if kind != "clean":
        light = light + sensor_noise(
            light, shot=_log_uniform(rng, 2e-5, 2e-3), read=_log_uniform(rng, 1e-4, 4e-3), rng=rng
        )
    codes = curve(np.clip(light, 0, 1))
    if kind == "phone":
        codes = _denoise_and_sharpen(codes, rng)
    picture = np.clip(np.rint(255 * codes), 0, 255).astype(np.uint8)
    if kind == "phone" or (kind == "noisy" and rng.random() < 0.15):
        picture = _jpeg(picture, int(rng.integers(60, 101)))
    return picture


def sensor_noise(light: Float32, *, shot: float, read: float, rng: np.random.Generator) -> Float32:
    """Noise of variance shot * light + read^2, in parts of the clipping level, for light of any shape."""
    sigma = np.sqrt(np.float32(shot) * np.clip(light, 0, 1) + np.float32(read) ** 2)
    return np.asarray(sigma * rng.standard_normal(light.shape, np.float32), np.float32)


def _denoise_and_sharpen(codes: Float32, rng: np.random.Generator) -> Float32:
    method = rng.integers(3)
    if method == 0:
        smooth = cv2.GaussianBlur(codes, (0, 0), rng.uniform(0.5, 1.2))
    elif method == 1:
        smooth = cv2.bilateralFilter(codes, 5, rng.uniform(0.03, 0.12), rng.uniform(1, 2))
    else:
        smooth = cv2.medianBlur(codes, 3)
    blurred = cv2.GaussianBlur(smooth, (0, 0), rng.uniform(0.7, 2.0))
    return np.asarray(smooth + rng.uniform(0.0, 1.2) * (smooth - blurred), np.float32)


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1])


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# ------------------------------------------------------------------------------------------ RAW mosaics


@dataclass(frozen=True, slots=True)
class SensorModel:
    """A camera's sensor: colour, levels and noise.

    balance: white-balance multipliers with G = 1. matrix: 3x3 balanced camera RGB to linear BT.709, rows sum to 1.
    shot, read: noise of variance shot * x + read^2 in parts of the white level.
    """

    balance: Float64
    matrix: Float64
    black: float
    bits: int
    shot: float
    read: float


def random_sensor(rng: np.random.Generator, *, bits: int | None = None) -> SensorModel:
    """A sensor like those of phones and cameras: 10-bit mostly, 12 and 14 as well."""
    depth = int(bits or rng.choice([10, 12, 14], p=[0.7, 0.15, 0.15]))
    red_green, red_blue = rng.uniform(-1.0, -0.25), rng.uniform(-0.25, 0.15)
    green_red, green_blue = rng.uniform(-0.4, -0.05), rng.uniform(-0.65, -0.1)
    blue_red, blue_green = rng.uniform(-0.1, 0.12), rng.uniform(-0.95, -0.2)
    matrix = np.array(
        [
            [1 - red_green - red_blue, red_green, red_blue],
            [green_red, 1 - green_red - green_blue, green_blue],
            [blue_red, blue_green, 1 - blue_red - blue_green],
        ]
    )
    return SensorModel(
        balance=np.array([rng.uniform(1.3, 2.7), 1.0, rng.uniform(1.2, 2.7)]),
        matrix=matrix,
        black=float(rng.choice([0, 16, 64]) * 2 ** (depth - 10)),
        bits=depth,
        shot=_log_uniform(rng, 3e-5, 3e-3),
        read=_log_uniform(rng, 1.5e-4, 3e-3),
    )


def record(scene: Float32, sensor: SensorModel, clipped_share: float, rng: np.random.Generator) -> Mosaic:
    """What `sensor` records of a linear BT.709 scene, (H, W, 3) with even sides, with `clipped_share` of it clipped."""
    height, width = scene.shape[:2]
    camera = np.maximum(scene @ (np.linalg.inv(sensor.matrix).T / sensor.balance).astype(np.float32), 0)
    camera *= np.float32(exposure_for(camera, clipped_share))
    light = np.empty((height, width), np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        light[row::2, column::2] = camera[row::2, column::2, channel]
    light += sensor_noise(light, shot=sensor.shot, read=sensor.read, rng=rng)
    white = float(2**sensor.bits - 1)
    counts = np.clip(np.rint(sensor.black + light * (white - sensor.black)), 0, white).astype(np.float32)
    return Mosaic(
        counts=counts,
        black=np.full((2, 2), sensor.black, np.float32),
        white=white,
        balance=sensor.balance,
        matrix=sensor.matrix,
        crop=(0, 0, height, width),
        bits=sensor.bits,
    )
