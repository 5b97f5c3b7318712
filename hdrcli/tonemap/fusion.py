"""Exposure fusion: the look that `develop` aims at.

Mertens, Kautz, Van Reeth, "Exposure Fusion", Pacific Graphics 2007.
"""

import cv2
import numpy as np

from hdrcli.color import Float32, srgb_encode

EXPOSURES = (-4.0, -2.0, 0.0, 2.0)  # in stops


def fusion(linear: Float32) -> Float32:
    """Fuses four sRGB-encoded exposures of a linear picture with OpenCV's default weights.

    linear: (H, W, 3) BT.709 RGB, mid-grey at 0.18. Returns (H, W, 3) sRGB-encoded in [0, 1].
    """
    brackets = [255 * srgb_encode(np.clip(linear * np.float32(2.0**ev), 0, 1)) for ev in EXPOSURES]
    merged = cv2.createMergeMertens().process(brackets)
    return np.clip(merged, 0, 1)
