"""Perceptual distance by features of VGG-16 or VGG-19 (Simonyan and Zisserman 2015), where the user has weights.

The files are torchvision's: `vgg16-397923af.pth` and `vgg19-dcbb9e9d.pth`, whose names end in the first digits of their
SHA-256. Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016.
"""

from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.cards import digest
from hdrcli.errors import WeightsError

FILES = ("vgg16-397923af.pth", "vgg19-dcbb9e9d.pth")

_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)  # of the first features of each block, as in FHDR's code
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Vgg(nn.Module):
    """The distance of two pictures, (N, 3, H, W) RGB in [0, 1], sides of at least 16: a mean over the batch."""

    def __init__(self, convolutions: tuple[int, ...]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        inputs = 3
        for count, width in zip(convolutions, _WIDTHS, strict=True):
            sizes = [inputs, *[width] * count]
            self.blocks.append(nn.Sequential(*(nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(sizes))))
            inputs = width
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(_SPREAD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.spread: Tensor

    def features(self, picture: Tensor) -> list[Tensor]:
        """What the first convolution of each of the five blocks gives, after its ReLU."""
        x = (picture - self.mean) / self.spread
        found: list[Tensor] = []
        for block in self.blocks:
            assert isinstance(block, nn.Sequential)
            x = F.relu(block[0](F.max_pool2d(x, 2) if found else x))
            found.append(x)
            for conv in list(block)[1:]:
                x = F.relu(conv(x))
        return found

    def forward(self, seen: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            expected = self.features(wanted)
        distances = [(a - b).abs().mean() for a, b in zip(self.features(seen), expected, strict=True)]
        return torch.stack([weight * value for weight, value in zip(_WEIGHTS, distances, strict=True)]).sum()


def load(path: Path) -> Vgg:
    """Reads one of torchvision's files, without running any code in it; WeightsError for any other."""
    if path.name not in FILES:
        raise WeightsError(f"{path.name} is none of {' and '.join(FILES)}", hint="give torchvision's file by its name")
    if not path.is_file() or not digest(path).startswith(path.stem.split("-")[1]):
        raise WeightsError(f"{path} is missing or damaged", hint=f"https://download.pytorch.org/models/{path.name}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read: {str(error).splitlines()[0]}", hint="get it again") from error
    return fill(Vgg(_CONVOLUTIONS[path.name.split("-")[0]]), state)


def fill(vgg: Vgg, state: dict[str, Tensor]) -> Vgg:
    """Puts torchvision's tensors, `features.0.weight` and so on, into the layers that they are for."""
    place = 0
    own: dict[str, Tensor] = {}
    for number, block in enumerate(vgg.blocks):
        assert isinstance(block, nn.Sequential)
        for index in range(len(block)):
            own |= {f"blocks.{number}.{index}.{part}": state[f"features.{place}.{part}"] for part in ("weight", "bias")}
            place += 2
        place += 1
    vgg.load_state_dict(own)
    return vgg.eval().requires_grad_(False)
