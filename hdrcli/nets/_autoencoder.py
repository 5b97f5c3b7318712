"""The autoencoder of Eilertsen et al. 2017, on which HDRCNN and SingleHDR's Hallucination-Net are built."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets._fused import ActiveConvs, active
from hdrcli.nets._joined import JoinedConv2d

VGG_CONVOLUTIONS = (2, 2, 3, 3, 3)  # Simonyan and Zisserman 2015, configuration D up to pool5
VGG_CHANNELS = (1, 2, 4, 8, 8)  # times `width`
VGG_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet, in code values of 255
NORM_EPS = 1e-5  # TensorLayer's
REACH = 184  # pixels from an output to the furthest input that it depends on


class DeconvolutionUp(nn.Module):
    """Doubles the size by a transposed convolution, as in HDRCNN."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outputs, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.norm(self.conv(x)))


class NearestUp(nn.Module):
    """Doubles the size by repetition and a convolution with reflected borders, as in SingleHDR."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(outputs, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.norm(active(self.conv, F.interpolate(x, scale_factor=2, mode="nearest"))))


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.norm(self.conv(x)))


class Autoencoder(nn.Module):
    """VGG-16 down to 1/32 and a decoder that fuses a skip at every size, the input itself last.

    width: channels at full size (64 in the papers).
    up: the layer that doubles the size. skip: what becomes of features, and of the input, on their way to the decoder.
    """

    def __init__(self, width: int, up: Callable[[int, int], nn.Module], skip: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        channels = [width * factor for factor in VGG_CHANNELS]
        self.skip = skip
        self.encoder = nn.ModuleList(
            _convolutions(inputs, outputs, count)
            for inputs, outputs, count in zip([3, *channels[:-1]], channels, VGG_CONVOLUTIONS, strict=True)
        )
        self.bottleneck = ConvNorm(channels[-1], channels[-1], 3)
        sizes = channels[::-1]
        self.ups = nn.ModuleList(up(*pair) for pair in zip([sizes[0], *sizes[:-1]], sizes, strict=True))
        self.fuses = nn.ModuleList(JoinedConv2d(2 * size, size, 1) for size in sizes)
        self.to_rgb = ConvNorm(width, 3, 1)
        self.last_fuse = JoinedConv2d(6, 3, 1)
        self.register_buffer("mean_bgr", torch.tensor(VGG_MEAN_BGR).view(1, 3, 1, 1), persistent=False)
        self.mean_bgr: Tensor

    def forward(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1], sides multiples of 32, to (N, 3, H, W); never autocast, lest highlights band."""
        rgb = rgb * 255
        x = rgb.flip(1) - self.mean_bgr
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for up, fuse in zip(self.ups, self.fuses, strict=True):
            x = fuse((up(x), self.skip(skips.pop())))
        x = self.to_rgb(x)
        with torch.autocast(x.device.type, enabled=False):
            planes: Tensor = self.last_fuse((x.to(rgb.dtype), self.skip(rgb)))
        return planes


def _convolutions(inputs: int, outputs: int, count: int) -> ActiveConvs:
    convs = [nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1) for i in range(count)]
    return ActiveConvs(*(layer for conv in convs for layer in (conv, nn.ReLU(inplace=True))))


def highlight_mask(rgb: Tensor, ramp: float) -> Tensor:
    """(N, 1, H, W) blend weight: 0 where the largest channel is below 1 - ramp, rising to 1 where it is 1."""
    return ((rgb.amax(1, keepdim=True) - 1 + ramp) / ramp).clamp(0, 1)


def published_layers() -> dict[str, str]:
    """Layers in the order in which the authors' code makes them: their scope name to the module here."""
    layers = {
        f"encoder/h{block + 1}/conv_{conv + 1}": f"encoder.{block}.{2 * conv}"
        for block, count in enumerate(VGG_CONVOLUTIONS)
        for conv in range(count)
    }
    layers |= {"encoder/h6/conv": "bottleneck.conv", "encoder/h6/batch_norm": "bottleneck.norm"}
    for level in range(5):
        layers |= {
            f"decoder/h{level + 1}/decon2d": f"ups.{level}.conv",
            f"decoder/h{level + 1}/decon2d/batch_norm_dc": f"ups.{level}.norm",
            f"decoder/h{level + 2}/fuse_skip_connection": f"fuses.{level}",
        }
    return layers | {
        "decoder/h7/conv2d": "to_rgb.conv",
        "decoder/h7/batch_norm": "to_rgb.norm",
        "decoder/h7/fuse_skip_connection": "last_fuse",
    }
