"""What is imported is declared in pyproject.toml, and what is declared is pinned for the tests."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"mrczdask", "tests", "benchmarks"}
PINNED = [*sorted((ROOT / "constraints").glob("*.txt"))]


def canonical(name: str) -> str:
    """Return the name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """Return the distributions that the package needs with some extras, those the extras take in included."""
    lines = list(PROJECT["dependencies"])
    todo, seen = list(extras), set()
    while todo:
        extra = todo.pop()
        seen.add(extra)
        for line in PROJECT["optional-dependencies"][extra]:
            inner = re.fullmatch(r"mrczdask\[(.*)\]", line)
            todo += [name for name in (inner[1].split(",") if inner else []) if name not in seen]
            lines += [] if inner else [line]
    return {canonical(re.split(r"[\[<>=!~ ;]", line)[0]) for line in lines}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, top-level module) of the imports of a file that are neither of the standard library nor its own."""
    near = {file.stem for file in path.parent.iterdir()} if "examples" in path.parts else set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for top in (name.split(".")[0] for name in names):
                if top and top not in sys.stdlib_module_names and top not in OWN | near:
                    yield node.lineno, top


def undeclared(folder: str, *extras: str) -> list[str]:
    """Return the imports below a folder whose distribution is not declared."""
    homes, known, found = importlib.metadata.packages_distributions(), declared(*extras), []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for line, top in imported(path):
            if not {canonical(home) for home in homes.get(top, [top])} & known:
                found.append(f"{path.relative_to(ROOT)}:{line}: {top}")
    return found


def test_the_package_imports_what_its_extras_declare() -> None:
    found = undeclared(
        "mrczdask", *(extra for extra in PROJECT["optional-dependencies"] if extra not in ("test", "docs"))
    )
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_all_else_imports_what_the_extra_test_declares(folder: str) -> None:
    found = undeclared(folder, "test")
    assert not found, "\n".join(found)


def test_an_undeclared_import_is_found() -> None:
    assert "moto" not in declared()
    assert "moto" in declared("test")
    assert any(fault.endswith(": pytest") for fault in undeclared("tests"))


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.stem)
def test_every_package_of_the_tests_is_pinned(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+]+", line) for line in lines)
    assert declared("test") - {canonical(line.partition("==")[0]) for line in lines} == set()


def test_the_tested_pythons_are_pinned() -> None:
    assert {"py311", "py313"} <= {path.stem for path in PINNED}
