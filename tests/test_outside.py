"""What pyiqa is handed, and what becomes of its number; its own models need weights that cannot be had offline."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from hdrcli import outside


@pytest.mark.parametrize("name", ["nima", "musiq", "liqe"])
def test_a_picture_reaches_pyiqa_as_it_wants_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked, seen = [], []

    def create_metric(metric_name: str, device: str) -> object:
        asked.append((metric_name, device))

        def metric(target: Tensor) -> Tensor:
            seen.append(target)
            return target.mean().reshape(1, 1)

        return metric

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    outside._pyiqa.cache_clear()
    picture = np.random.default_rng(0).uniform(-0.1, 1.1, (12, 20, 3)).astype(np.float32)
    score = outside.no_reference(name, picture)
    outside._pyiqa.cache_clear()
    assert asked == [(name, "cpu")]
    expected = np.clip(picture, 0, 1)
    assert torch.equal(seen[0], torch.from_numpy(expected).permute(2, 0, 1)[None])
    assert score == pytest.approx(float(expected.mean()), rel=1e-5)
