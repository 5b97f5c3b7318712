"""The mu-law protocol of the FHDR line of papers: relative light in [0, 1], compared after a logarithmic curve.

Its numbers are not to be mixed with PU21 or with scores of tone-mapped pictures.
"""

import numpy as np
import torch
from torch import Tensor

from hdrcli.color import Float32
from hdrcli.metrics import similarity

MU = 5000.0


def mu_law(light: Float32) -> Float32:
    """log(1 + 5000 v) / log(5001) of linear light v, any shape; light below 0 counts as 0."""
    return np.asarray(np.log1p(MU * np.maximum(light, 0)) / np.log1p(MU), np.float32)


def scores(prediction: Float32, reference: Float32) -> dict[str, float]:
    """Scores of one linear picture, both (H, W, 3) on one scale on which the reference lies in [0, 1].

    psnr_mu: PSNR in dB of mu-law values, peak 1, as all papers have it. psnr_linear: the same of light.
    ssim_mu: SSIM of mu-law values by the standard, range 1.
    ssim_published: what FHDR's code computes: of light, uniform window, data in [0, 1] taken for data of range 2,
    which gives higher numbers.
    """
    light = _planes(prediction), _planes(reference)
    coded = _planes(mu_law(prediction)), _planes(mu_law(reference))
    return {
        "psnr_mu": float(similarity.psnr(*coded, data_range=1.0)),
        "psnr_linear": float(similarity.psnr(*light, data_range=1.0)),
        "ssim_mu": float(similarity.ssim(*coded, data_range=1.0)),
        "ssim_published": float(similarity.ssim_uniform(*light, data_range=2.0)),
    }


def _planes(picture: Float32) -> Tensor:
    """(H, W, 3) to (1, 3, H, W) in double precision."""
    return torch.from_numpy(picture.astype(np.float64)).permute(2, 0, 1)[None]
