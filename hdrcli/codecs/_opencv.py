"""Decoding and encoding by OpenCV: what Pillow cannot do with more than 8 bits, and what OpenCV does faster."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hdrcli.codecs._display import damaged
from hdrcli.errors import WriteError

_SILENT = 0
_set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel  # OpenCV 4, 5
_set_log_level(_SILENT)  # damaged files are reported by ReadError


def decode(data: bytes, name: str) -> NDArray[Any]:
    """The stored numbers: (H, W) or (H, W, 3 or 4) with channels in the order RGB(A). ReadError where damaged."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise damaged(name, error.err) from error
    if decoded is None:
        raise damaged(name, "")
    if decoded.ndim == 3:
        order = cv2.COLOR_BGR2RGB if decoded.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return np.asarray(cv2.cvtColor(decoded, order)) if decoded.dtype in _CONVERTIBLE else _swapped(decoded)
    return np.asarray(decoded)


def encode(suffix: str, pixels: NDArray[Any], parameters: Sequence[int] = ()) -> bytes:
    """(H, W, 3) RGB as the file that OpenCV writes for `suffix`."""
    try:
        done, encoded = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), list(parameters))
    except cv2.error as error:
        raise WriteError(f"{suffix[1:]} encoding failed ({error.err})", hint="try another format") from error
    if not done:
        raise WriteError(f"{suffix[1:]} encoding failed", hint="try another format")
    return encoded.tobytes()


_CONVERTIBLE = (np.uint8, np.uint16, np.float32)


def _swapped(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
