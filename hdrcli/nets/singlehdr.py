"""SingleHDR: the camera's pipeline undone step by step, each step by a network of its own (Liu et al. 2020)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hdrcli.errors import UsageError, WeightsError
from hdrcli.nets._autoencoder import REACH, Autoencoder, NearestUp, highlight_mask, published_layers
from hdrcli.nets._fused import ActiveConvs, NormedConv2d, active
from hdrcli.nets._joined import JoinedConv2d
from hdrcli.nets._quick import by_bands, cast
from hdrcli.nets._tf import double_bilinear, max_pool_same, same_pad, sobel_edges
from hdrcli.nets._tf_checkpoint import bundle_prefix, by_name, fit, read_bundle
from hdrcli.network import Context, NetSpec, Network, StateDict
from hdrcli.tiling import Span, Tiling, Windows, spans

MASK_RAMP = 0.12
LEAK = 0.1
CURVE_SAMPLES = 1024
CURVE_COMPONENTS = 11
HISTOGRAM_BINS = (4, 8, 16)
EVIDENCE_CHANNELS = 3 + 6 + 3 * sum(bins + 1 for bins in HISTOGRAM_BINS)
FEATURE_STEP = 8  # input pixels from one position of the features to the next
U_NET_REACH = 131  # pixels from an output to the furthest input that it depends on
FEATURE_REACH = 30  # the same, from the nearest of the pixels of a position
SOBEL_REACH = 1
PREPARE_TILING = Tiling(multiple_of=16, halo=U_NET_REACH + FEATURE_REACH + SOBEL_REACH, tile=768)
SLIM_NORM_EPS = 1e-3


class SingleHdr(Network):
    """sRGB-encoded (N, 3, H, W) in [0, 1], sides multiples of 32, to linear RGB, 1.0 where the input clips.

    The picture is dequantized, linearized by one curve for all pixels, given light where it is clipped, and refined.
    The context's `curve` (1, 1024) is the inverse response: linear light at equally spaced code values from 0 to 1.

    width: channels of the Hallucination-Net at full size, 64 in the paper; the other networks scale with it.
    refine: whether there is a Refinement-Net, which only the authors' jointly fine-tuned weights have.
    """

    def __init__(self, width: int = 64, refine: bool = True) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise UsageError(f"the width of singlehdr must be a multiple of 4, not {width}", hint="the paper's is 64")
        halo = U_NET_REACH + REACH + (U_NET_REACH if refine else 0)
        self.tiling = Tiling(multiple_of=32, halo=halo, minimum=32, border=32)
        quarter = width // 4
        self.dequantization = UNet(3, [quarter * factor for factor in (1, 2, 4, 8, 16)])
        self.features = CurveFeatures(width)
        self.response = InverseResponse(8 * width)
        self.hallucination = Autoencoder(width, NearestUp, unit_skip)
        self.refinement = UNet(9, [quarter * factor for factor in (1, 2, 4, 8, 8)]) if refine else None

    def prepare(self, image: Windows) -> Context:
        """The response curve, from features averaged over the picture in exact tiles of one size."""
        rows, columns = (spans(image.shape[axis], PREPARE_TILING.tile, PREPARE_TILING) for axis in (2, 3))
        parts = []
        for row, column in product(rows, columns):
            tile = self.dequantize(image[:, :, row.window, column.window])
            evidence = by_bands(_cast_evidence, tile, around=SOBEL_REACH)
            features = self.features(evidence)[:, :, _feature_part(row), _feature_part(column)]
            parts.append(features.to(tile.dtype).sum((2, 3)))
        positions = image.shape[2] * image.shape[3] / FEATURE_STEP**2
        return {"curve": self.response(torch.stack(parts).sum(dim=0) / positions)}

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        encoded = self.dequantize(tile)
        linear = apply_curve(encoded, context["curve"])
        light = linear + highlight_mask(linear, MASK_RAMP) * F.relu_(self.hallucination(linear))
        if self.refinement is None:
            return light
        return F.relu(light + self.refinement(torch.cat((light, linear, encoded), 1)))

    def dequantize(self, image: Tensor) -> Tensor:
        """Code values without the steps of quantization, in [0, 1]."""
        encoded: Tensor = (image + self.dequantization(image).tanh()).clamp(0, 1)
        return encoded


class UNet(nn.Module):
    """Five sizes, two convolutions at each, kernels 7, 5, 3, 3, 3 on the way down; three planes come out.

    channels: at each size, the largest size first.
    """

    KERNELS = (7, 5, 3, 3, 3)

    def __init__(self, inputs: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(_leaky_conv(above, below, kernel), _leaky_conv(below, below, kernel))
            for above, below, kernel in zip([inputs, *channels[:-1]], channels, self.KERNELS, strict=True)
        )
        self.up = nn.ModuleList(_Up(below, above) for below, above in pairwise(channels[::-1]))
        self.last = nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for down in self.down:
            x = down(F.avg_pool2d(x, 2) if skips else x)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = up(x, skip)
        planes: Tensor = self.last(x)
        return planes


class _Up(nn.Module):
    """Doubles the size and joins the features of that size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = _leaky_conv(inputs, outputs, 3)
        self.after = JoinedConv2d(2 * outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.after((self.before(double_bilinear(x)), skip), LEAK)
        return joined


def _leaky_conv(inputs: int, outputs: int, kernel: int) -> ActiveConvs:
    return ActiveConvs(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.LeakyReLU(LEAK, inplace=True))


class CurveFeatures(nn.Module):
    """A residual network cut off at 1/8: (N, 102, H, W) evidence to (N, 8 width, H/8, W/8)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(EVIDENCE_CHANNELS, width, 7, stride=2)
        self.stem_norm = nn.BatchNorm2d(width, SLIM_NORM_EPS)
        self.blocks = nn.Sequential(
            Bottleneck(width, width, 1, project=True),
            Bottleneck(4 * width, width, 1, project=False),
            Bottleneck(4 * width, width, 1, project=False),
            Bottleneck(4 * width, 2 * width, 2, project=True),
            Bottleneck(8 * width, 2 * width, 1, project=False),
        )

    def forward(self, evidence: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(same_pad(evidence, 7, 2))))
        features: Tensor = self.blocks(max_pool_same(x, 3, 2))
        return features


class Bottleneck(nn.Module):
    """Residual block (He et al. 2016): 1x1, 3x3 and 1x1 convolutions beside a shortcut, the stride first."""

    def __init__(self, inputs: int, inner: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.reduce = _conv_norm(inputs, inner, 1, stride)
        self.middle = _conv_norm(inner, inner, 3, 1)
        self.expand = _conv_norm(inner, 4 * inner, 1, 1)
        self.shortcut = _conv_norm(inputs, 4 * inner, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = active(self.middle, active(self.reduce, x))
        return F.relu(self.shortcut(x) + self.expand(inner))


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> NormedConv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return NormedConv2d(conv, nn.BatchNorm2d(outputs, SLIM_NORM_EPS))


class InverseResponse(nn.Module):
    """Features of a picture to its inverse response curve, (N, features) to (N, 1024), by principal components.

    The components are part of the weights. A new network has a power of 2.2 and sines, which vanish at both ends.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.coefficients = nn.Linear(features, CURVE_COMPONENTS)
        code = torch.linspace(0, 1, CURVE_SAMPLES)
        orders = torch.arange(1, CURVE_COMPONENTS + 1)
        self.register_buffer("mean", code**2.2)
        self.register_buffer("basis", torch.sin(torch.pi * code[:, None] * orders))
        self.mean: Tensor
        self.basis: Tensor

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return increasing(self.mean + self.coefficients(features) @ self.basis.T)


def unit_skip(features: Tensor) -> Tensor:
    """Features, in code values of 255, to the decoder's unit range."""
    return features / 255


def curve_evidence(encoded: Tensor) -> Tensor:
    """What the curve is guessed from: (N, 3, H, W) in [0, 1] to (N, 102, H, W), itself, its edges, its histograms."""
    histograms = [soft_histogram(encoded, bins) for bins in HISTOGRAM_BINS]
    return torch.cat((encoded, sobel_edges(encoded), *histograms), 1)


def _cast_evidence(encoded: Tensor) -> Tensor:
    return cast(curve_evidence(encoded))


def soft_histogram(image: Tensor, bins: int) -> Tensor:
    """How much every value belongs to bins + 1 bins around 0 to 1: (N, C, H, W) to (N, (bins + 1) C, H, W)."""
    return torch.cat([F.relu(1 - (image - i / bins).abs() * bins) for i in range(bins + 1)], 1)


def increasing(curve: Tensor) -> Tensor:
    """Makes curves (N, S) rise from 0 to 1: all slopes are lifted by as much as the most negative one needs."""
    slopes = curve.diff(dim=1)
    slopes = slopes + F.relu(-slopes.amin(1, keepdim=True))
    return F.pad((slopes / slopes.sum(1, keepdim=True)).cumsum(1), (1, 0))


def apply_curve(encoded: Tensor, curve: Tensor) -> Tensor:
    """Looks up (N, C, H, W) values in [0, 1] in curves (N, S) or one curve (1, S): linear between, constant outside."""
    last = curve.shape[1] - 1
    position = encoded.flatten(1) * last
    below = position.floor()
    curve = curve.expand(len(encoded), -1)
    low, high = (curve.gather(1, index.clamp(0, last)) for index in (below.long(), below.long() + 1))
    return torch.lerp(low, high, position - below).view_as(encoded)


def _feature_part(span: Span) -> slice:
    """The kept part of a window, in positions of its features."""
    start = span.window.start
    return slice((span.kept.start - start) // FEATURE_STEP, (span.kept.stop - start) // FEATURE_STEP)


def _published_layers() -> dict[str, str]:
    """The authors' scope names to the modules here."""
    u_net = [f"down.{level}.{conv}.0" for level in range(5) for conv in (0, 1)]
    u_net += [f"up.{level}.{conv}" for level in range(4) for conv in ("before.0", "after")]
    layers = {"crf_feature_net/conv1": "features.stem", "crf_feature_net/bn_conv1/BatchNorm": "features.stem_norm"}
    for (i, block), (branch, part) in product(enumerate(("2a", "2b", "2c", "3a", "3b")), _BRANCHES.items()):
        layers |= {
            f"crf_feature_net/res{block}_{branch}": f"features.blocks.{i}.{part}.0",
            f"crf_feature_net/bn{block}_{branch}/BatchNorm": f"features.blocks.{i}.{part}.1",
        }
    for theirs, ours in (("Dequantization_Net", "dequantization"), ("Refinement_Net", "refinement")):
        layers |= {f"{theirs}/conv2d_{i}": f"{ours}.{name}" for i, name in enumerate([*u_net, "last"])}
        layers[f"{theirs}/conv2d"] = layers.pop(f"{theirs}/conv2d_0")
    layers |= {f"Hallucination_Net/{theirs}": f"hallucination.{ours}" for theirs, ours in published_layers().items()}
    return layers | {"ae_invcrf_decode_net/dense": "response.coefficients"}


_BRANCHES = {"branch1": "shortcut", "branch2a": "reduce", "branch2b": "middle", "branch2c": "expand"}
LAYERS = _published_layers()


def import_checkpoints(paths: Sequence[Path], build: Mapping[str, Any]) -> StateDict:
    """Reads the authors' TensorFlow checkpoints and the `invemor.txt` that comes with their code.

    paths: the three checkpoints of the separate networks (refine = False) or the fine-tuned one, each by its folder,
    its prefix or any of its files, and the curve file, unless `build` names that as "emor".
    """
    build = dict(build)
    curves = [Path(build.pop("emor"))] if "emor" in build else []
    prefixes = dict.fromkeys(prefix for path in paths if (prefix := bundle_prefix(path)))
    curves += [path for path in paths if not bundle_prefix(path) and path.name != "checkpoint"]
    if len(curves) != 1 or not prefixes:
        raise WeightsError(
            f"weights of singlehdr are TensorFlow checkpoints and a curve file, not {len(prefixes)} and {len(curves)}",
            hint="name the three checkpoints or the fine-tuned one, and invemor.txt, which is in the authors' code",
        )
    variables = {name: array for prefix in prefixes for name, array in read_bundle(prefix).items()}
    mean, basis = read_invemor(curves[0])
    with torch.device("meta"):
        network = SingleHdr(**build)
    if network.refinement and not any(name.startswith("Refinement_Net/") for name in variables):
        raise WeightsError("these checkpoints have no Refinement-Net", hint="use --set refine=false")
    named = by_name(variables, LAYERS) | {"response.mean": mean, "response.basis": basis}
    return fit(network, named, ", ".join(str(prefix) for prefix in prefixes))


def read_invemor(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean (1024) and the first 11 components (1024, 11) of inverse response curves in an EMoR file.

    Grossberg and Nayar, "Modeling the space of camera response functions", PAMI 26(10), 2004: after each of the lines
    `g0 =`, `hinv(1)=`, `hinv(2)=` ... come 256 lines of four numbers.
    """
    tags = ["g0=", *(f"hinv({i + 1})=" for i in range(CURVE_COMPONENTS))]
    try:
        lines = path.read_text("ascii").splitlines()
        places = {line.replace(" ", ""): at + 1 for at, line in enumerate(lines) if "=" in line}
        table = [" ".join(lines[places[tag] : places[tag] + CURVE_SAMPLES // 4]).split() for tag in tags]
        curves = np.array(table, np.float32)
        if curves.shape != (len(tags), CURVE_SAMPLES) or not np.isfinite(curves).all():
            raise ValueError("a curve is cut short")
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} does not hold the curves of the EMoR model: {error}",
            hint="name the file invemor.txt, which comes with the authors' code",
        ) from error
    return curves[0], curves[1:].T


SPEC = NetSpec(
    paper="Y.-L. Liu, W.-S. Lai, Y.-S. Chen, Y.-L. Kao, M.-H. Yang, Y.-Y. Chuang, J.-B. Huang: Single-image HDR "
    "reconstruction by learning to reverse the camera pipeline, CVPR 2020",
    reference="https://github.com/alex04072000/SingleHDR @ ce89648b",
    task="expand",
    gives="linear",
    build=SingleHdr,
    importers={"tensorflow-checkpoint": import_checkpoints},
    deviations=(
        "a picture whose sides are not multiples of 64 keeps its size: its mirrored border grows at the bottom and the "
        "right, where the authors enlarge the picture by cubic interpolation and shrink the result, which leaves "
        "negative light",
    ),
    tiny={"width": 4, "refine": True},
)
