"""Scores of HDR pictures in perceptually uniform units.

PU21: Mantiuk and Azimi, "PU21: A novel perceptually uniform encoding for adapting existing quality metrics for HDR",
PCS 2021, variant banding_glare. Pictures are relative linear RGB, (H, W, 3), 1.0 at the level where the camera clips;
scores put 1.0 at 203 cd/m2 (ITU-R BT.2408).
"""

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import Float32, luminance

WHITE = 203.0  # cd/m2 of linear 1.0
PEAK = 256.0  # of PU21 values, for PSNR
PARAMETERS = (0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204, 596.3148142)


def pu21(nits: NDArray[np.floating]) -> Float32:
    """Absolute luminance in cd/m2 to PU21 units, clamped to 0.005..10000; 100 cd/m2 is near 256."""
    light = np.clip(nits, 0.005, 10000.0) ** PARAMETERS[3]
    return np.asarray(
        PARAMETERS[6]
        * (((PARAMETERS[0] + PARAMETERS[1] * light) / (1 + PARAMETERS[2] * light)) ** PARAMETERS[4] - PARAMETERS[5]),
        np.float32,
    )


def gain(prediction: Float32, reference: Float32, unclipped: NDArray[np.bool_]) -> float:
    """The one gain that aligns a prediction to its reference: median log ratio over unclipped pixels."""
    a, b = luminance(prediction)[unclipped], luminance(reference)[unclipped]
    lit = (a > 1e-6) & (b > 1e-6)
    return float(np.exp(np.median(np.log(b[lit] / a[lit])))) if lit.any() else 1.0


def pu_psnr(prediction: Float32, reference: Float32, where: NDArray[np.bool_] | None = None) -> float:
    """PSNR in dB between PU21 values, over all pixels or over those of the (H, W) mask `where`."""
    return psnr(pu21(WHITE * prediction), pu21(WHITE * reference), where)


def psnr(units: Float32, wanted: Float32, where: NDArray[np.bool_] | None = None) -> float:
    """PSNR in dB of values that are PU21 units already."""
    error = np.square(units - wanted) if where is None else np.square(units[where] - wanted[where])
    return float(10 * np.log10(PEAK**2 / max(float(np.mean(error)), 1e-9)))


def stops(prediction: Float32, reference: Float32, where: NDArray[np.bool_]) -> float:
    """RMS error of log2 luminance over the (H, W) mask `where`."""
    a, b = (np.maximum(luminance(picture)[where], 1e-6) for picture in (prediction, reference))
    return float(np.sqrt(np.mean(np.log2(a / b) ** 2)))
