"""What must not be in the repository: registries, paths of one machine, leftovers, data that is not ours to give."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.documents import ROOT

LARGEST_BYTES = 2_000_000

# Patterns are spelled so that this file does not hold what it looks for.
_REGISTRY = r"py[p]i\b|pythonhoste[d]|anaconda[.]org|index-ur[l]|find-link[s]|trusted-hos[t]"
_MACHINE = r"(?<![\w.~}/*])/(?:wor[k]|roo[t]|hom[e]|op[t]|User[s])/\w"
_LEFTOVER = r"\b(?:TOD[O]|FIXM[E]|XX[X])\b|<<<<<<[<] |\bissu[e] #?\d"
_TEMPORARY = r"(?<![\w.])/tm[p]\b"

FORBIDDEN = {
    "a package registry": re.compile(_REGISTRY, re.IGNORECASE),
    "a path of one machine": re.compile(_MACHINE),
    "a leftover": re.compile(_LEFTOVER),
}
FORBIDDEN_OUTSIDE_TESTS = {"a path of one machine": re.compile(_TEMPORARY)}


def tracked() -> list[Path]:
    """Return the files of the repository: those under version control and those about to be."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """Return the text of a file, None where it is not text."""
    content = path.read_bytes()
    try:
        return None if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        return None


def offences(text: str, *, in_tests: bool) -> list[str]:
    """Return the lines that hold what is forbidden."""
    checks = [*FORBIDDEN.items(), *([] if in_tests else FORBIDDEN_OUTSIDE_TESTS.items())]
    lines = list(enumerate(text.splitlines(), 1))
    return [
        f"line {n}: {what}: {line.strip()[:80]}" for what, found in checks for n, line in lines if found.search(line)
    ]


def test_no_file_names_a_registry_or_a_machine() -> None:
    found = []
    for path in tracked():
        text, name = text_of(path), path.relative_to(ROOT)
        if text is not None:
            found += [f"{name}: {offence}" for offence in offences(text, in_tests=name.parts[0] == "tests")]
    assert not found, "\n".join(found)


def test_files_are_small() -> None:
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size:,}"
        for path in tracked()
        if path.stat().st_size > LARGEST_BYTES
    ]
    assert not large, "\n".join(large)


@pytest.mark.real_data
def test_no_real_data_is_committed(data_dir: Path) -> None:
    real = {_digest(path): path for path in (data_dir / "real").rglob("*") if path.is_file()}
    assert len(real) > 10
    assert [(path, real[_digest(path)]) for path in tracked() if _digest(path) in real] == []


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_picture_of_the_documents_is_made_by_a_program() -> None:
    programs = [*ROOT.glob("examples/**/*.py"), *ROOT.glob("benchmarks/*.py"), ROOT / "Makefile"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in programs)
    pictures = [path for path in tracked() if path.is_relative_to(ROOT / "docs") and path.suffix in {".png", ".svg"}]
    assert [picture.name for picture in pictures if picture.name not in text] == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install --index" + "-url https://example.org/simple x",
        "see https://py" + "pi.org/project/x",
        "see https://files.python" + "hosted.org/x.whl",
        'open("/wo' + 'rk/main/x")',
        "cd /ro" + "ot/x",
        "# TO" + "DO: later",
        "as iss" + "ue 2 says",
        'open("/t' + 'mp/x")',
    ],
)
def test_an_offence_is_found(line: str) -> None:
    assert len(offences(f"one\n{line}\nthree", in_tests=False)) == 1


@pytest.mark.parametrize(
    "line",
    ["https://doi.org/10.1016/j.jsb.2017.11.012", "s3://work/movie.mrcz", "an issue of sign", "work/main", "~/work/x"],
)
def test_what_is_allowed_is_not_reported(line: str) -> None:
    assert offences(line, in_tests=False) == []


def test_tests_may_use_the_temporary_folder() -> None:
    assert offences("/t" + "mp/x", in_tests=True) == []
