"""Protocols by name: which scores make up each, on which scale, and what is done to the pictures before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hdrcli import losses, outside
from hdrcli.color import Float32
from hdrcli.errors import UsageError
from hdrcli.image import Transfer
from hdrcli.metrics import hanji, mulaw, pictures, pu

Scores = dict[str, float]


class Metric(NamedTuple):
    """How one score is shown: its heading, its decimals, and whether a higher one is better."""

    label: str
    decimals: int
    higher: bool


METRICS: Mapping[str, Metric] = {
    "pu_psnr": Metric("PU21-PSNR dB", 2, True),
    "pu_psnr_crf": Metric("PU21-PSNR curve-corrected dB", 2, True),
    "pu_psnr_clip": Metric("PU21-PSNR clipped dB", 2, True),
    "stops_clip": Metric("RMS stops clipped", 3, False),
    "pu_psnr_crf_clip": Metric("PU21-PSNR curve-corrected clipped dB", 2, True),
    "pu_vsi": Metric("PU21-VSI", 4, True),
    "pu_vsi_crf": Metric("PU21-VSI curve-corrected", 4, True),
    "cvvdp": Metric("ColorVideoVDP JOD", 3, True),
    "hdrvdp3": Metric("HDR-VDP-3", 3, True),
    "psnr_mu": Metric("PSNR-mu dB", 2, True),
    "psnr_linear": Metric("PSNR linear dB", 2, True),
    "ssim_mu": Metric("SSIM-mu", 4, True),
    "ssim_published": Metric("SSIM as published (range 2)", 4, True),
    "psnr": Metric("PSNR dB", 2, True),
    "ssim": Metric("SSIM", 4, True),
    "ms_ssim": Metric("MS-SSIM", 4, True),
    "dE76": Metric("dE76", 2, False),
    "dE2000": Metric("dE2000", 2, False),
    "rgb_uv": Metric("RGB-uv distance", 4, False),
    "nima": Metric("NIMA", 3, True),
    "musiq": Metric("MUSIQ", 2, True),
    "liqe": Metric("LIQE", 3, True),
}


class Pair(NamedTuple):
    """A prediction and its reference, (H, W, 3) on one scale, and the (H, W) mask of clipped input pixels."""

    prediction: Float32
    reference: Float32
    clipped: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to score.

    about: the sentence that goes with every output. peak: of the display, in words. holds: what pictures must be.
    prepare: puts a pair on the protocol's scale. scorers: by name, so that one can be left out. also: optional scores.
    """

    about: str
    peak: str
    holds: Transfer
    prepare: Callable[[Pair], Pair]
    scorers: Mapping[str, Callable[[Pair], Scores]]
    also: tuple[str, ...] = ()

    def metrics(self, also: tuple[str, ...], without: tuple[str, ...]) -> list[str]:
        """Names of the scores in order; UsageError for a name that the protocol does not know."""
        for name in (*also, *without):
            if name not in (self.also if name in also else self.scorers):
                known = f"--also: {', '.join(self.also) or 'nothing'}; --without: {', '.join(self.scorers)}"
                raise UsageError(f"{name!r} is no score that this protocol can add or leave out", hint=known)
        kept = [metric for name in self.scorers if name not in without for metric in _GIVES[name]]
        return kept + list(also)


def score(protocol: Protocol, pair: Pair, metrics: list[str], hdrvdp3_command: str | None = None) -> Scores:
    """The scores named `metrics` of one pair that `protocol.prepare` has seen."""
    found: Scores = {}
    for name, scorer in protocol.scorers.items():
        if any(metric in metrics for metric in _GIVES[name]):
            found |= scorer(pair)
    for name in set(metrics) & set(protocol.also):
        found[name] = _also(name, pair, hdrvdp3_command)
    return {name: found[name] for name in metrics}


def _also(name: str, pair: Pair, command: str | None) -> float:
    if name in ("nima", "musiq", "liqe"):
        return outside.no_reference(name, pair.prediction)
    nits = [np.clip(pu.WHITE * light, hanji.DARKEST, hanji.PEAK) for light in (pair.prediction, pair.reference)]
    if name == "cvvdp":
        return outside.color_video_vdp(*nits)
    return outside.hdrvdp3(command or "", *nits)


def _aligned(pair: Pair) -> Pair:
    return pair._replace(prediction=hanji.align(*pair))


def _unit_range(pair: Pair) -> Pair:
    """Both divided by the reference's highest value where that exceeds 1, as the FHDR line has its data in [0, 1]."""
    top = max(float(pair.reference.max()), 1.0)
    return pair._replace(prediction=pair.prediction / np.float32(top), reference=pair.reference / np.float32(top))


def _eight_bits(pair: Pair) -> Pair:
    prediction, reference = (
        np.rint(255 * np.clip(picture, 0, 1)).astype(np.float32) / np.float32(255) for picture in pair[:2]
    )
    return pair._replace(prediction=prediction, reference=reference)


def _vsi(pair: Pair) -> Scores:
    corrected = hanji.correct_response(pair.prediction, pair.reference)
    return {
        "pu_vsi": hanji.pu_vsi(pair.prediction, pair.reference),
        "pu_vsi_crf": hanji.pu_vsi(corrected, pair.reference),
    }


def _pictures(pair: Pair) -> Scores:
    prediction, reference, _ = pair
    return {
        "psnr": pictures.psnr(prediction, reference),
        "ssim": pictures.ssim(prediction, reference),
        "ms_ssim": pictures.ms_ssim(prediction, reference),
        "dE76": pictures.delta_e76(prediction, reference),
        "dE2000": pictures.delta_e2000(prediction, reference),
    }


def _histogram(pair: Pair) -> Scores:
    found, wanted = (losses.rgb_uv_histogram(torch.from_numpy(picture).permute(2, 0, 1)[None]) for picture in pair[:2])
    return {"rgb_uv": float(losses.hellinger(found, wanted))}


_GIVES: Mapping[str, tuple[str, ...]] = {
    "pu": ("pu_psnr", "pu_psnr_crf", "pu_psnr_clip", "stops_clip", "pu_psnr_crf_clip"),
    "vsi": ("pu_vsi", "pu_vsi_crf"),
    "mu": ("psnr_mu", "psnr_linear", "ssim_mu", "ssim_published"),
    "pictures": ("psnr", "ssim", "ms_ssim", "dE76", "dE2000"),
    "rgb_uv": ("rgb_uv",),
}

PROTOCOLS: Mapping[str, Protocol] = {
    "hanji": Protocol(
        about=(
            "hanji: PU21 (banding_glare) of light with 1.0 at 203 cd/m2, after one gain fitted where the input is not "
            "clipped; curve-corrected scores after the 20-parameter response correction of Hanji et al. 2022; clipped "
            "pixels have a channel of at least 250 of 255 in the input"
        ),
        peak="10000 cd/m2 (light clamped to 0.005..10000; PSNR peak 256 PU21 units)",
        holds=Transfer.LINEAR,
        prepare=_aligned,
        scorers={"pu": lambda pair: hanji.scores(*pair), "vsi": _vsi},
        also=("cvvdp", "hdrvdp3"),
    ),
    "mu-law": Protocol(
        about=(
            "mu-law: the FHDR line, mu = 5000; no gain is fitted; where the reference exceeds 1 both pictures are "
            "divided by its highest value; SSIM as published takes data in [0, 1] for data of range 2"
        ),
        peak="1.0 (relative)",
        holds=Transfer.LINEAR,
        prepare=_unit_range,
        scorers={"mu": lambda pair: dict(mulaw.scores(pair.prediction, pair.reference))},
    ),
    "display": Protocol(
        about="display: 8-bit sRGB pictures as they are; PSNR and SSIM over R, G and B, colour differences under D65",
        peak="1.0 (code 255)",
        holds=Transfer.SRGB,
        prepare=_eight_bits,
        scorers={"pictures": _pictures, "rgb_uv": _histogram},
        also=("nima", "musiq", "liqe"),
    ),
}
