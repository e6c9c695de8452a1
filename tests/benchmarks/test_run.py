"""Every benchmark still runs, and the driver says which of them did not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.common import DOCUMENT, ROOT


@pytest.mark.slow
@pytest.mark.parametrize("name", run.available())
def test_a_benchmark_runs_quickly_and_keeps_nothing(name: str) -> None:
    kept = DOCUMENT.read_bytes()
    command = [sys.executable, "-W", "error", "-m", f"benchmarks.{name}", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "\n| " in done.stdout
    assert DOCUMENT.read_bytes() == kept


def test_the_benchmarks_are_found() -> None:
    assert "io" in run.available()
    assert not {"run", "common"} & set(run.available())


def test_an_unknown_benchmark_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(["no_such"])
    assert stopped.value.code == 2
    assert "no benchmark no_such: there are" in capsys.readouterr().err


def test_a_failed_benchmark_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "good.py").write_text("import sys\n\ndef main(): print(sys.argv[1:])\n\nmain()\n")
    (folder / "bad.py").write_text("\ndef main(): raise SystemExit(3)\n\nmain()\n")
    (folder / "helper.py").write_text("x = 1\n")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    assert run.main(["--quick"]) == 1
    printed = capfd.readouterr()
    assert "== bad" in printed.out
    assert "['--quick']" in printed.out
    assert "failed: bad" in printed.err
    assert run.main(["good"]) == 0
