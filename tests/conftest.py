"""Shared fixtures. Real files lie beside the repository, in ../shared/data, and are never copied into it."""

from pathlib import Path

import pytest
from program import hdr, here, models  # noqa: F401

from hdrcli.probe import Verdict

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files; the test is skipped only where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def one_precision(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Precision "auto" is fp32, whatever is faster on the machine of the tests; the user's cache stays as it is."""
    monkeypatch.setattr("hdrcli.probe.tried", lambda network, device: Verdict("fp32", 1.0, 0.0, 1.0, 500.0, 300.0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
