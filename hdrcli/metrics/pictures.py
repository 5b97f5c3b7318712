"""Scores of finished pictures: sRGB-encoded RGB in [0, 1], (H, W, 3) float32."""

import cv2
import numpy as np

from hdrcli.color import BT709, Float32, rgb_to_xyz, srgb_decode

_D65 = np.array([0.95047, 1.0, 1.08883])


def psnr(picture: Float32, reference: Float32) -> float:
    """Peak signal-to-noise ratio in dB, peak 1."""
    return float(-10 * np.log10(max(float(np.mean((picture - reference) ** 2)), 1e-12)))


def ssim(picture: Float32, reference: Float32) -> float:
    """Structural similarity, mean over channels; data range 1, Gaussian window of sigma 1.5 (Wang et al. 2004)."""
    a, b = picture.astype(np.float64), reference.astype(np.float64)
    mean_a, mean_b, square_a, square_b, product = (
        cv2.GaussianBlur(x, (11, 11), 1.5) for x in (a, b, a * a, b * b, a * b)
    )
    var_a, var_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    structure = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    return float(np.mean(structure / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))))


def lab(picture: Float32) -> Float32:
    """CIE 1976 L*a*b* under D65 of an sRGB-encoded picture; (H, W, 3)."""
    xyz = srgb_decode(picture) @ rgb_to_xyz(BT709).T / _D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    parts = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return np.stack(parts, axis=-1).astype(np.float32)


def delta_e76(picture: Float32, reference: Float32) -> float:
    """Mean CIE 1976 colour difference."""
    return float(np.mean(np.linalg.norm(lab(picture) - lab(reference), axis=-1)))
