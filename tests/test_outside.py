"""What pyiqa is handed, and what becomes of its number; its own models need weights that cannot be had offline."""

import sys
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor

from hdrcli import outside
from hdrcli.errors import MissingExtraError, ReadError


@pytest.mark.parametrize("name", ["nima", "musiq", "liqe"])
def test_a_picture_reaches_pyiqa_as_it_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    asked, seen = [], []

    def create_metric(metric_name: str, device: str) -> object:
        asked.append((metric_name, device))
        print("Loading pretrained model")

        def metric(target: Tensor) -> Tensor:
            seen.append(target)
            return target.mean().reshape(1, 1)

        return metric

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    outside._pyiqa.cache_clear()
    picture = np.random.default_rng(0).uniform(-0.1, 1.1, (224, 230, 3)).astype(np.float32)
    score = outside.no_reference(name, picture)
    outside._pyiqa.cache_clear()
    assert asked == [(name, "cpu")]
    expected = np.clip(picture, 0, 1)
    assert torch.equal(seen[0], torch.from_numpy(expected).permute(2, 0, 1)[None])
    assert score == pytest.approx(float(expected.mean()), rel=1e-5)
    assert not capsys.readouterr().out, "stdout carries data only"


def test_weights_that_cannot_be_fetched_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_metric(metric_name: str, device: str) -> object:
        raise URLError("Name or service not known")

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    with pytest.raises(MissingExtraError, match="no weights for musiq"):
        outside.check(("musiq",), None)


def test_a_picture_too_small_for_liqe_is_a_clear_error() -> None:
    with pytest.raises(ReadError, match="224"):
        outside.no_reference("liqe", np.zeros((223, 300, 3), np.float32))
