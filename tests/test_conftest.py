"""A missing data folder skips a test, or fails it where the data are required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import pytest
def test_needs_data(data_dir): assert data_dir.is_dir()
@pytest.mark.real_data
def test_skips_itself(): pytest.skip("no such file")
def test_skips_for_another_reason(): pytest.skip("no GPU")
"""


def _outcomes(folder: Path, **environment: str) -> str:
    """Return the last line of pytest for the probe under the real conftest."""
    (folder / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    (folder / "test_probe.py").write_text(PROBE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MRCZDASK_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:warnings", "-c", os.devnull, "--rootdir", str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=kept | environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        timeout=120,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "3 skipped"),
        ({"MRCZDASK_REQUIRE_DATA": "1"}, "1 failed, 1 skipped, 1 error"),
        ({"MRCZDASK_TEST_DATA": "."}, "1 passed, 2 skipped"),
        ({"MRCZDASK_TEST_DATA": ".", "MRCZDASK_REQUIRE_DATA": "1"}, "1 failed, 1 passed, 1 skipped"),
        ({"MRCZDASK_TEST_DATA": "no such folder"}, "2 skipped, 1 error"),
    ],
)
def test_missing_data(environment: dict[str, str], expected: str, tmp_path: Path) -> None:
    assert _outcomes(tmp_path, **environment).startswith(expected)
