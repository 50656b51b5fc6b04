from __future__ import annotations

from pathlib import Path

import pytest
from helpers.fabricated_run import make


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A completed run's folder, the test's own to spoil."""
    return make(tmp_path / "2025-03-01_10-00-00-resampler-a1b2c3")
