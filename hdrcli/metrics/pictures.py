"""Scores of finished pictures: sRGB-encoded RGB in [0, 1], (H, W, 3) float32."""

import numpy as np
import torch
from torch import Tensor

from hdrcli.color import BT709, Float32, Float64, rgb_to_xyz, srgb_decode
from hdrcli.metrics import similarity

_D65 = np.array([0.95047, 1.0, 1.08883])


def psnr(picture: Float32, reference: Float32) -> float:
    """Peak signal-to-noise ratio in dB, peak 1."""
    return float(-10 * np.log10(max(float(np.mean((picture - reference) ** 2)), 1e-12)))


def ssim(picture: Float32, reference: Float32) -> float:
    """Structural similarity by Wang et al. 2004 of data of range 1, mean over channels."""
    return float(similarity.ssim(_planes(picture), _planes(reference), data_range=1.0))


def ms_ssim(picture: Float32, reference: Float32) -> float:
    """Multi-scale structural similarity of data of range 1; NaN for a picture with a side below 16 pixels."""
    if min(picture.shape[:2]) < 16:
        return float("nan")
    return float(similarity.ms_ssim(_planes(picture), _planes(reference), data_range=1.0))


def lab(picture: Float32) -> Float32:
    """CIE 1976 L*a*b* under D65 of an sRGB-encoded picture; (H, W, 3)."""
    xyz = srgb_decode(picture) @ rgb_to_xyz(BT709).T / _D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    parts = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return np.stack(parts, axis=-1).astype(np.float32)


def delta_e76(picture: Float32, reference: Float32) -> float:
    """Mean CIE 1976 colour difference."""
    return float(np.mean(np.linalg.norm(lab(picture) - lab(reference), axis=-1)))


def delta_e2000(picture: Float32, reference: Float32) -> float:
    """Mean CIEDE2000 colour difference (CIE 142:2001), all parametric factors 1."""
    return float(np.mean(ciede2000(lab(picture), lab(reference))))


def ciede2000(first: Float32, second: Float32) -> Float64:
    """CIEDE2000 of L*a*b* colours (..., 3), as Sharma, Wu, Dalal, Color Res. Appl. 2005, write it down."""
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(colour.astype(np.float64), -1, 0) for colour in (first, second))
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * _near_grey(mean_chroma)
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.arctan2(b, stretch * a) % (2 * np.pi) for a, b in ((a1, b1), (a2, b2)))
    coloured = c1 * c2 > 0
    turn = np.where(coloured, (h2 - h1 + np.pi) % (2 * np.pi) - np.pi, 0)
    hue = np.where(coloured, (h1 + h2) / 2, h1 + h2)
    hue = np.where(coloured & (np.abs(h1 - h2) > np.pi), hue + np.where(h1 + h2 < 2 * np.pi, np.pi, -np.pi), hue)
    weight = (
        1
        - 0.17 * np.cos(hue - np.radians(30))
        + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.radians(6))
        - 0.20 * np.cos(4 * hue - np.radians(63))
    )
    chroma, middle = (c1 + c2) / 2, ((l1 + l2) / 2 - 50) ** 2
    lightness = (l2 - l1) / (1 + 0.015 * middle / np.sqrt(20 + middle))
    colourful = (c2 - c1) / (1 + 0.045 * chroma)
    tint = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2) / (1 + 0.015 * chroma * weight)
    angle = np.radians(60) * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    rotation = -2 * _near_grey(chroma) * np.sin(angle)
    return np.asarray(np.sqrt(lightness**2 + colourful**2 + tint**2 + rotation * colourful * tint))


def _near_grey(chroma: Float64) -> Float64:
    """0 for grey, 1 for strong colours."""
    return np.asarray(np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))


def _planes(picture: Float32) -> Tensor:
    """(H, W, 3) to (1, 3, H, W) in double precision."""
    return torch.from_numpy(picture.astype(np.float64)).permute(2, 0, 1)[None]
