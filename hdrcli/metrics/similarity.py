"""Similarity of pictures, as torch tensors (N, C, H, W), one score per picture; differentiable, so also for training.

The range of the data is always said: published codes guess it, which makes their scores depend on the picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_GAUSSIAN = (11, 1.5)  # size and sigma of the window, Wang et al. 2004
_UNIFORM = 7  # side of the window, the default of scikit-image
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the five scales, Wang et al. 2003
_LEAST = 1e-6  # contrast terms below this count as this, for their powers to exist


def psnr(prediction: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio in dB; (N,), infinite where the pictures are equal."""
    error = (prediction - reference).square().flatten(1).mean(1)
    return 10 * torch.log10(data_range**2 / error)


def ssim(prediction: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """SSIM of Wang et al., IEEE TIP 2004: Gaussian 11x11 window, population moments, no borders; (N,)."""
    return _compare(prediction, reference, _gaussian(prediction), data_range)[0]


def ssim_uniform(prediction: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """SSIM as scikit-image computes it by default: uniform 7x7 window, sample moments, no borders; (N,)."""
    window = torch.full((_UNIFORM,), 1 / _UNIFORM, device=prediction.device, dtype=_precise(prediction))
    count = _UNIFORM**2
    return _compare(prediction, reference, window, data_range, correction=count / (count - 1))[0]


def ms_ssim(prediction: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """Multi-scale SSIM of Wang, Simoncelli, Bovik, Asilomar 2003, on five scales; (N,).

    Where contrast is inverted on the whole of a scale the original formula has no value; here it is nearly 0.
    """
    similarity, contrast = ms_ssim_terms(prediction, reference, data_range=data_range)
    terms = torch.cat([contrast[:-1], similarity[-1:]]).clamp(min=_LEAST)
    weights = terms.new_tensor(_SCALES)[:, None]
    return (terms**weights).prod(0)


def ms_ssim_terms(prediction: Tensor, reference: Tensor, *, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM, and its contrast and structure factors alone, on each of the five scales: two (5, N), finest first.

    The window of a scale smaller than 11 pixels shrinks to it, its centre at half its size rounded down.
    """
    terms = []
    for _ in _SCALES:
        terms.append(_compare(prediction, reference, _gaussian(prediction), data_range))
        prediction, reference = F.avg_pool2d(prediction, 2), F.avg_pool2d(reference, 2)
    similarity, contrast = zip(*terms, strict=True)
    return torch.stack(similarity), torch.stack(contrast)


def _gaussian(picture: Tensor) -> Tensor:
    size, sigma = _GAUSSIAN
    size = min(size, *picture.shape[2:])
    places = torch.arange(size, device=picture.device, dtype=_precise(picture)) - size // 2
    weights = torch.exp(-places.square() / (2 * sigma**2))
    return weights / weights.sum()


def _precise(picture: Tensor) -> torch.dtype:
    return torch.promote_types(picture.dtype, torch.float32)


def _compare(a: Tensor, b: Tensor, window: Tensor, data_range: float, correction: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean over channels and places of SSIM and of its contrast and structure factors; correction is of variances."""
    with torch.autocast(a.device.type, enabled=False):
        channels = a.shape[1]
        a, b = a.to(window.dtype), b.to(window.dtype)
        maps = torch.cat([a, b, a * a, b * b, a * b], dim=1)
        for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
            maps = F.conv2d(maps, window.reshape(shape).expand(5 * channels, 1, -1, -1), groups=5 * channels)
        mean_a, mean_b, square_a, square_b, product = maps.chunk(5, dim=1)
        variances = (square_a + square_b - mean_a**2 - mean_b**2) * correction
        covariance = (product - mean_a * mean_b) * correction
        low, high = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        contrast = (2 * covariance + high) / (variances + high)
        similarity = (2 * mean_a * mean_b + low) / (mean_a**2 + mean_b**2 + low) * contrast
        return similarity.mean(dim=(1, 2, 3)), contrast.mean(dim=(1, 2, 3))
