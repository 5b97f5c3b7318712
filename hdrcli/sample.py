"""A few output numbers of a network for one fixed picture: they tell whether weights still give what they gave."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hdrcli.color import Float32, Float64
from hdrcli.network import Network
from hdrcli.tiling import crop, pad

TOLERANCE = 1e-3  # allowed difference of a number, in parts of its size plus the mean size of all of them

_HEIGHT, _WIDTH = 96, 128
_POSITIONS = 8


def picture() -> Float32:
    """(96, 128, 3) RGB in [0, 1]: smooth gradients and a saturated disc, from exact arithmetic alone."""
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    u, v = x / _WIDTH, y / _HEIGHT
    gradients = np.stack([u * (1 - 0.5 * v), 4 * u * (1 - u) * v, 0.1 + 0.8 * (1 - v) * (1 - v)], axis=-1)
    disc = (x - 88) ** 2 + (y - 32) ** 2 < 18**2
    gradients[disc] = 1
    return gradients.astype(np.float32)


def measure(network: Network, task: str, device: str = "cpu") -> dict[str, Any]:
    """The sample of a network for a card: the output at eight positions, its mean, and the tolerance of both.

    device: where the network lies.
    """
    output = _output(network, task, device)
    steps = np.arange(_POSITIONS)
    rows = (2 * steps + 1) * _HEIGHT // (2 * _POSITIONS)
    columns = (2 * (5 * steps % _POSITIONS) + 1) * _WIDTH // (2 * _POSITIONS)
    return {
        "tolerance": TOLERANCE,
        "mean": _plain(output.mean(axis=(1, 2))),
        "values": [_plain(output[:, row, column]) for row, column in zip(rows, columns, strict=True)],
    }


def deviation(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference between two samples, in parts of what `expected` tolerates; infinite for NaN."""
    now, then = (np.array([sample["mean"], *sample["values"]]) for sample in (found, expected))
    if now.shape != then.shape:
        return float("inf")
    size = np.abs(then)
    allowed = expected["tolerance"] * (size + size.mean() + np.finfo(np.float32).eps)
    return float(np.nan_to_num(np.abs(now - then) / allowed, nan=np.inf).max())


def _output(network: Network, task: str, device: str) -> Float64:
    """(3, 96, 128): all three stages on the picture, or on its Bayer mosaic for a network that develops."""
    rgb = picture()
    planes = rgb.transpose(2, 0, 1) if task == "expand" else _mosaic(rgb)
    image = torch.from_numpy(np.ascontiguousarray(planes))[None].to(device)
    with torch.inference_mode():
        output = network.whole(pad(image, network.tiling))
    return crop(output, network.tiling, *image.shape[2:])[0].cpu().double().numpy()


def _mosaic(rgb: Float32) -> Float32:
    """(4, 48, 64) planes B, Gr, R, Gb (see `hdrcli.sensor`) of the picture, taken as light by squaring it."""
    red, green, blue = (rgb * rgb).transpose(2, 0, 1)
    return np.stack([blue[1::2, 1::2], green[0::2, 1::2], red[0::2, 0::2], green[1::2, 0::2]])


def _plain(values: Float64) -> list[float]:
    return [float(f"{value:.7g}") for value in values]
