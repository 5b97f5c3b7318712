"""Shared fixtures. Real files lie beside the repository, in ../shared/data, and are never copied into it."""

from pathlib import Path

import pytest
from program import hdr, here, models  # noqa: F401

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files; the test is skipped only where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    return folder
