"""Scores of HDR pictures made from one photograph: PU21 after what no single photograph can know is taken away.

Hanji, Mantiuk, Eilertsen, Hajisharif, Unger, "Comparison of single image HDR reconstruction methods - the caveats of
quality assessment", SIGGRAPH 2022. Pictures are linear BT.709 RGB, (H, W, 3), 1.0 at the level where the camera clips
and shown at 203 cd/m2; see `hdrcli.metrics.pu`.
"""

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import BT709, Float32, Float64, rgb_to_xyz
from hdrcli.metrics import pu
from hdrcli.metrics.vsi import vsi

DARKEST, PEAK = 0.005, 10000.0  # cd/m2, the range of the display

_TO_XYZ = rgb_to_xyz(BT709).astype(np.float32)
_FROM_XYZ = np.linalg.inv(rgb_to_xyz(BT709)).astype(np.float32)
_DEGREE = 3  # of the polynomials
_PULL = 0.01  # of the chromaticity's polynomial towards leaving colours as they are
_UV_SCALE = 410 / 255  # brings u'v' to about 0..1
_LEAST = 1e-4  # of X, Y and Z

# Constants of the perceptual quantiser, SMPTE ST 2084.
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def align(prediction: Float32, reference: Float32, clipped: NDArray[np.bool_]) -> Float32:
    """The prediction times the one gain that fits it to the reference where the photograph is not clipped."""
    return np.float32(pu.gain(prediction, reference, ~clipped)) * prediction


def scores(aligned: Float32, reference: Float32, clipped: NDArray[np.bool_]) -> dict[str, float]:
    """The main scores of a picture that `align` has scaled; those of clipped pixels are NaN where there are none.

    pu_psnr: dB over all pixels. pu_psnr_crf: the same after `correct_response`. pu_psnr_clip: as pu_psnr, over the
    (H, W) mask `clipped` alone. stops_clip: RMS error of log2 luminance there. pu_psnr_crf_clip: as pu_psnr_crf, there.
    """
    wanted = pu.pu21(pu.WHITE * reference)
    shown = pu.pu21(pu.WHITE * aligned)
    corrected = pu.pu21(pu.WHITE * correct_response(aligned, reference))
    some = bool(clipped.any())
    return {
        "pu_psnr": pu.psnr(shown, wanted),
        "pu_psnr_crf": pu.psnr(corrected, wanted),
        "pu_psnr_clip": pu.psnr(shown, wanted, clipped) if some else float("nan"),
        "stops_clip": pu.stops(aligned, reference, clipped) if some else float("nan"),
        "pu_psnr_crf_clip": pu.psnr(corrected, wanted, clipped) if some else float("nan"),
    }


def pu_vsi(aligned: Float32, reference: Float32) -> float:
    """VSI of PU21 values, 0 to 1.

    PU21 puts 100 cd/m2, the white of an ordinary display, at 256, so its values are on the scale of 8-bit codes for
    which VSI's constants are made; highlights exceed it, up to 595. Scaled down to 255 they would score too well.
    """
    return vsi(pu.pu21(pu.WHITE * aligned), pu.pu21(pu.WHITE * reference))


def correct_response(prediction: Float32, reference: Float32) -> Float32:
    """The prediction with the global curve and colour change that bring it closest to the reference.

    Least squares with 20 parameters: a cubic of luminance, PQ-encoded, and a cubic of u' and v' with their product,
    drawn a little towards the identity. Both pictures (H, W, 3), relative; so is the result.
    """
    found = _luminance_uv(prediction)
    wanted = _luminance_uv(reference)
    codes = _fit(_pq(found[:1]), _pq(wanted[:1]), pull=0.0)
    light = _from_pq(np.clip(codes[0], _pq(np.array(DARKEST)), 1))
    uv = _fit(found[1:], wanted[1:], pull=_PULL)
    return _to_rgb(light, uv).reshape(prediction.shape) / np.float32(pu.WHITE)


def _fit(values: Float64, wanted: Float64, *, pull: float) -> Float64:
    """Cubic of (C, N) values with the product of two channels that comes closest to `wanted`, evaluated."""
    channels, pixels = values.shape
    square = values * values
    product = values.prod(axis=0, keepdims=True)[: channels - 1]  # none of a single channel
    terms = np.concatenate([values, square, square * values, product, np.ones((1, pixels))])
    identity = np.eye(len(terms), channels)
    weight = pull * pixels / len(terms)
    normal = terms @ terms.T + weight * np.eye(len(terms))
    solution, *_ = np.linalg.lstsq(normal, terms @ wanted.T + weight * identity, rcond=None)
    return np.asarray(solution.T @ terms)


def _luminance_uv(picture: Float32) -> Float64:
    """(H, W, 3) relative light to (3, N): luminance in cd/m2, and u' and v' of CIE 1976, scaled."""
    nits = np.maximum(np.float32(pu.WHITE) * picture.reshape(-1, 3), np.float32(DARKEST))
    x, y, z = np.maximum(_TO_XYZ @ nits.T, np.float32(_LEAST)).astype(np.float64)
    scale = _UV_SCALE / (x + 15 * y + 3 * z)
    return np.stack([y, 4 * x * scale, 9 * y * scale])


def _to_rgb(light: Float64, uv: Float64) -> Float32:
    """(N,) luminance and (2, N) scaled chromaticity to (N, 3)."""
    u, v = np.maximum(uv / _UV_SCALE, _LEAST)
    ratio = light / (4 * v)
    xyz = np.maximum(np.stack([9 * u * ratio, light, (12 - 3 * u - 20 * v) * ratio]), _LEAST).astype(np.float32)
    return np.asarray(np.maximum(_FROM_XYZ @ xyz, 0).T, np.float32)


def _pq(nits: Float64) -> Float64:
    power = (np.minimum(nits, PEAK) / PEAK) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _from_pq(codes: Float64) -> Float64:
    root = codes ** (1 / _M2)
    return np.asarray(PEAK * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1))
