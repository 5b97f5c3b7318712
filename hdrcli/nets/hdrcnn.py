"""HDRCNN: an autoencoder that predicts the light of saturated pixels in the log domain (Eilertsen et al. 2017)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdrcli.errors import UsageError, WeightsError
from hdrcli.nets._autoencoder import REACH, Autoencoder, DeconvolutionUp, highlight_mask, published_layers
from hdrcli.nets._tf_checkpoint import by_position, fit, read_npz
from hdrcli.network import Context, NetSpec, Network, StateDict
from hdrcli.tiling import Tiling

LOG_OFFSET = 1 / 255
MASK_RAMP = 0.05


class Hdrcnn(Network):
    """sRGB-encoded (N, 3, H, W) in [0, 1], sides multiples of 32, to linear RGB, 1.0 where the input clips.

    The authors' options --gamma G and --scaling S are the caller's: feed min(1, S x)^(1/G) and raise the result to G.

    width: channels at full size, 64 in the paper. camera_curve: whether light that is not clipped comes from the
    inverse of the mean camera curve that the paper trains with, rather than from the square that it predicts with.
    """

    def __init__(self, width: int = 64, camera_curve: bool = False) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"the width of hdrcnn must be positive, not {width}", hint="the paper's width is 64")
        self.tiling = Tiling(multiple_of=32, halo=REACH, minimum=32)
        self.autoencoder = Autoencoder(width, DeconvolutionUp, log_skip)
        self.unclipped: Callable[[Tensor], Tensor] = inverse_camera_curve if camera_curve else torch.square

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        """The light of unclipped pixels, blended into the prediction where the largest channel passes 0.95."""
        alpha = highlight_mask(tile, MASK_RAMP)
        predicted: Tensor = self.autoencoder(tile).exp() - LOG_OFFSET
        return (1 - alpha) * self.unclipped(tile) + alpha * predicted

    def finish(self, output: Tensor, context: Context) -> Tensor:
        """Light is not negative; the prediction may be, by up to 1/255."""
        return output.clamp(min=0)


def inverse_camera_curve(codes: Tensor) -> Tensor:
    """Light in [0, 1] of code values in [0, 1]: the inverse of (1 + s) x^n / (x^n + s), n = 0.9, s = 0.6."""
    return (0.6 * codes / (1.6 - codes)) ** (1 / 0.9)


def log_skip(features: Tensor) -> Tensor:
    """Features, in code values of 255, to the decoder's log domain."""
    offset = features.new_tensor(LOG_OFFSET)
    return torch.addcmul(offset, features, features, value=255**-2).log_()


LAYERS = {theirs: f"autoencoder.{ours}" for theirs, ours in published_layers().items()}


def import_npz(paths: Sequence[Path], build: Mapping[str, Any]) -> StateDict:
    """Reads the authors' `hdrcnn_params.npz` (TensorLayer 1.x): 80 arrays, known by their order alone."""
    if len(paths) != 1:
        raise WeightsError(f"weights of hdrcnn are one .npz file, not {len(paths)}", hint="name that file alone")
    with torch.device("meta"):
        network = Hdrcnn(**build)
    source = paths[0].name
    return fit(network, by_position(read_npz(paths[0]), network, LAYERS, source), source)


SPEC = NetSpec(
    paper="G. Eilertsen, J. Kronander, G. Denes, R. K. Mantiuk, J. Unger: HDR image reconstruction from a single "
    "exposure using deep CNNs, ACM Transactions on Graphics 36(6), 2017",
    reference="https://github.com/gabrieleilertsen/hdrcnn @ 67f5a94b",
    task="expand",
    gives="linear",
    build=Hdrcnn,
    importers={"tensorlayer-npz": import_npz},
    deviations=(
        "the picture keeps its size: it is extended by mirroring to a multiple of 32 and cropped back, where the "
        "authors crop and resize it to 1024x768 or to the size asked for",
        "with the option camera_curve, unclipped light follows the paper's mean camera curve, not the square",
    ),
    tiny={"width": 4},
)
