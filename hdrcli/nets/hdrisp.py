"""raw_to_tonemappedHDR: from packed RAW to a finished picture, through five levels of resolution.

        planes - encode1 - - - - - - - - - - - - - - - - - - level 1 - level 0     packed size, twice that
                    \\- encode2 - - - - - - - - - - level 2 -/                      1/2
                          \\- encode3 - - - level 3 -/                              1/4
                                \\- level 4 -/                                      1/8

Normalisation and attention scale features by numbers of the whole picture: means, variances, maxima. `prepare` measures
them once, and all tiles use them instead of their own. Where the whole is too large for memory, `survey` gathers the
same numbers over tiles, from the coarsest level to the finest; of the whole picture it holds the features of a level
until the next one has its own. Doubling the resolution keeps corners on corners, so it depends on where in the picture
a pixel lies: tiles carry their place with them, as `located` gives it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.batch import Check, go_on
from hdrcli.nets import _tone
from hdrcli.nets._pynet import KERNELS, Coarse, Coarsest, Conv, Fine, Pair
from hdrcli.nets._torch_checkpoint import import_arrays
from hdrcli.nets._whole import Facts, Located, Survey, TileFacts, name_statistics
from hdrcli.nets.lumenraw import encode
from hdrcli.network import Context, NetSpec, Network, StateDict
from hdrcli.tiling import Tiling, Windows, round_up, window_side

_PLANES = 4
_HALO, _HALO_OF_TONE = 171, 193
_CELL = _tone.CELL // 2  # in planes
_HALO_OF_STAGE = 34  # of a level, the coarser one being given: level 3 reaches farthest


class HdrIsp(Network):
    """(N, 4, h, w) planes B, Gr, R, Gb to (N, 3, 2h, 2w) sRGB-encoded RGB in (0, 1); h and w are multiples of 8.

    width: channels at packed size, 32 in the paper; twice as many at each level below. coded: the network sees
    asinh-coded planes. skip: the last picture begins with that of level 1, and gets detail from a learned linear
    demosaic of the coded planes, as far as the features trust it. view: side of the views in planes that it was trained
    on; larger pictures have the tone that they have at that size, see `_tone`. Published weights have none of these.
    """

    planes = _PLANES

    def __init__(self, width: int = 32, coded: bool = False, skip: bool = False, view: int = 0) -> None:
        super().__init__()
        w1, w2, w3, w4 = (width << level for level in range(4))
        self.tiling = Tiling(multiple_of=8, halo=_HALO_OF_TONE if view else _HALO, scale=2, tile=1024, minimum=16)
        self.encode1 = Pair(_PLANES, w1, norm=False)
        self.encode2 = Pair(w1, w2)
        self.encode3 = Pair(w2, w3)
        self.level4 = Coarsest(w3, w4, hidden=width // 2)
        self.level3 = Coarse(w3, hidden=width // 2)
        self.level2 = Fine(w2, width, merge=Pair(len(KERNELS) * width, w2))
        self.level1 = Fine(w1, width, merge=Conv(len(KERNELS) * width, w1))
        self.up3 = Conv(w4, w3)
        self.up2 = Conv(w3, w2)
        self.up1 = Conv(w2, w1)
        self.up0 = Conv(w1, w1 // 2)
        self.out = nn.ModuleList(Conv(inputs, 3, active=False) for inputs in (w1 // 2, w1, w2, w3, w4))
        self.coded, self.view = coded, view
        self.skip = nn.ConvTranspose2d(_PLANES, 3, 6, stride=2, padding=4, bias=False) if skip else None
        self.trust = Conv(w1 // 2, 3, active=False) if skip else None
        self.surveyed = w3 / 16 + w2 / 4  # the features of levels 3 and 2
        name_statistics(self)

    def prepare(self, image: Windows) -> Context:
        planes = image[:, :, : image.shape[2], : image.shape[3]]
        facts = Facts(planes, {}, _PLANES)
        self._features(planes, facts, 1)
        return facts.noted | self._tone(planes)

    def survey(self, image: Windows, tile: int, check: Check = go_on) -> Context:
        tiling = Tiling(multiple_of=8, halo=_HALO_OF_STAGE)
        window = max(window_side(side, tile, self.tiling) for side in image.shape[2:])
        survey = Survey(image, tiling, window - 2 * round_up(_HALO_OF_STAGE, 8), check)
        survey.gather(self._pooled, self.encode2, self.encode3)
        pooled = survey.mapped(self._pooled)
        facts = Facts(pooled.new_zeros(()).expand(image.shape), {}, _PLANES)
        x = self.level4(pooled, facts)
        survey.context |= facts.noted
        for level, blend in ((3, self.level3), (2, self.level2), (1, self.level1)):
            stage = partial(self._blended_tile, level, x)
            survey.gather(stage, blend)
            if level > 1:
                x = survey.mapped(stage)
        return survey.context | self._tone(image)

    def located(self, image: Windows) -> Windows:
        return Located(image)

    def forward(self, tile: Tensor, context: Context) -> Tensor:
        """With an empty context the tile counts as a whole picture: what the authors' code does, and training needs."""
        return self._run(tile, context, 0)

    def whole(self, image: Tensor, reduced: Callable[[], AbstractContextManager[None]] = nullcontext) -> Tensor:
        with reduced():
            return self._run(image, {}, 0).to(image.dtype)

    def at_level(self, planes: Tensor, level: int) -> Tensor:
        """The picture that a level from 0 to 4 gives, for training from coarse to fine: (N, 3, 2h, 2w) / 2^level."""
        return self._run(planes, {}, level)

    def _run(self, tile: Tensor, context: Context, wanted: int) -> Tensor:
        facts = Facts(tile, context, _PLANES)
        planes = tile[:, :_PLANES]
        if wanted:
            coarse: Tensor = self.out[wanted]([self._features(planes, facts, wanted)], facts)
            return torch.sigmoid(coarse)
        picture = self._finest(planes, facts)
        known = context or self._tone(planes)
        return torch.sigmoid(_tone.toned(picture, facts.seen(known["tone"], _CELL)) if "tone" in known else picture)

    def _tone(self, image: Windows) -> dict[str, Tensor]:
        """What tiles of a large picture take their tone from: its picture as a view, before the sigmoid."""
        small = _tone.view(image, self.view) if self.view else None
        if small is None:
            return {}
        picture = self._finest(small, Facts(small, {}, _PLANES))
        return {"tone": _tone.cells(picture, 2 * image.shape[2], 2 * image.shape[3])}

    def _finest(self, planes: Tensor, facts: Facts) -> Tensor:
        """The picture of level 0, before its sigmoid."""
        x = self._features(planes, facts, 1)
        features = self.up0([facts.doubled(x)], facts)
        picture: Tensor = self.out[0]([features], facts)
        if self.skip is None or self.trust is None:
            return picture
        detail: Tensor = self.skip(F.pad(encode(planes), (1, 1, 1, 1), mode="reflect"))
        trusted = torch.sigmoid(self.trust([features], facts)) * detail
        return picture + facts.doubled(self.out[1]([x], facts)) + trusted

    def _features(self, planes: Tensor, facts: Facts, wanted: int) -> Tensor:
        """The features of a level from 4 to 1, and so of all coarser ones before."""
        encoded = list(self._encoded(planes, facts))
        x: Tensor = self.level4(F.max_pool2d(encoded[-1], 2), facts)
        for level in range(3, wanted - 1, -1):
            x = self._blended(level, encoded.pop(), x, facts)
        return x

    def _encoded(self, planes: Tensor, facts: Facts) -> Iterator[Tensor]:
        """What the levels 1, 2 and 3 see of the input."""
        features = self.encode1([encode(planes) if self.coded else planes], facts)
        yield features
        for coarser in (self.encode2, self.encode3):
            features = coarser([F.max_pool2d(features, 2)], facts)
            yield features

    def _encoded_at(self, level: int, planes: Tensor, facts: Facts) -> Tensor:
        return next(islice(self._encoded(planes, facts), level - 1, None))

    def _blended(self, level: int, encoded: Tensor, coarser: Tensor, facts: Facts) -> Tensor:
        """The features of a level from 3 to 1 from those of the next coarser one and what it sees of the input."""
        blends, ups = (self.level1, self.level2, self.level3), (self.up1, self.up2, self.up3)
        x: Tensor = blends[level - 1]([encoded, ups[level - 1]([facts.doubled(coarser)], facts)], facts)
        return x

    def _pooled(self, planes: Tensor, facts: Facts) -> Tensor:
        """What level 4 sees of the input."""
        return F.max_pool2d(self._encoded_at(3, planes, facts), 2)

    def _blended_tile(self, level: int, coarser: Tensor, planes: Tensor, facts: TileFacts) -> Tensor:
        """The features of a tile at a level, given those of the whole picture at the next coarser one."""
        encoded = self._encoded_at(level, planes, facts)
        return self._blended(level, encoded, facts.seen(coarser, 2**level), facts)


def _published_modules() -> dict[str, str]:
    modules = {
        **_pair("encode1", "conv_l1_d1"),
        **_pair("encode2", "conv_l2_d1"),
        **_pair("encode3", "conv_l3_d1"),
        "level4.eca.0.conv": "out_eca1_l4.conv",
        "level4.eca.1.conv": "out_eca2_l4.conv",
        **_pair("level3.pair", "conv_l3_d3"),
        "level3.eca.conv": "out_eca_l3.conv",
        **_pair("level2.pair", "conv_l2_d2"),
        **_pair("level2.merge", "conv_l2_d3"),
        **_pair("level1.pair", "conv_l1_d2"),
        "level1.merge.conv": "conv_l1_d3.conv2d",
        "out.0.conv": "conv_l0_d1.conv2d",
    }
    for index in range(4):
        modules |= _pair(f"level4.pairs.{index}", f"conv_l4_d{index + 1}")
        modules[f"up{index}.conv"] = f"conv_t{index}b.conv2d"
        modules[f"out.{index + 1}.conv"] = f"conv_l{index + 1}_out.conv2d"
    for level in (4, 3):
        ours, theirs = f"level{level}.cbam", f"out_cbam_l{level}"
        modules[f"{ours}.places"] = f"{theirs}.sam.conv"
        for layer in (0, 2):
            modules[f"{ours}.largest.{layer}"] = f"{theirs}.cam.linear_max.{layer}"
            modules[f"{ours}.mean.{layer}"] = f"{theirs}.cam.linear_avg.{layer}"
    for level, index in product((2, 1), range(len(KERNELS))):
        ours, theirs = f"level{level}.branches.{index}", f"IEM_l{level}_{index + 1}"
        modules[f"{ours}.enter.conv"] = f"conv_l{level}_IEM{index + 1}.conv2d"
        modules[f"{ours}.light"] = f"{theirs}.conv1"
        modules |= {f"{ours}.level.{2 * layer}": f"{theirs}.fc{layer + 1}" for layer in range(3)}
    return modules


def _pair(ours: str, theirs: str) -> dict[str, str]:
    convs = {f"{ours}.{a}.conv": f"{theirs}.conv_3{b}.conv2d" for a, b in (("first", "a"), ("second", "b"))}
    norms = {f"{ours}.{a}.norm": f"{theirs}.conv_3{b}.instance" for a, b in (("first", "a"), ("second", "b"))}
    return convs | norms


def import_torch(paths: Sequence[Path], build: Mapping[str, Any]) -> StateDict:
    """A .pth file of the authors' code, as they save it from nn.DataParallel."""
    with torch.device("meta"):
        expected = HdrIsp(**build).state_dict()
    return import_arrays(paths, _published_modules(), expected, "hdrisp")


SPEC = NetSpec(
    paper="Erbas, RAW to Tone-mapped HDR Camera ISP; after PyNET (Ignatov et al., CVPRW 2020)",
    reference="https://github.com/korayerbas/raw_to_tonemappedHDR @ dd2b054c",
    task="develop",
    gives="srgb",
    build=HdrIsp,
    importers={"torch-state-dict": import_torch},
    deviations=(
        "statistics of a picture larger than one tile are measured on the whole picture and shared by its tiles",
        "with coded, the network sees asinh-coded planes",
        "with view, large pictures have the tone that they have at the size of the views that were trained on",
        "with skip, the last picture is that of level 1 with corrections and detail from a learned linear demosaic",
    ),
    tiny={"width": 4},
)
