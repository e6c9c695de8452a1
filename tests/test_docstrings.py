"""Every public name is documented in full, and every example in a docstring runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from numpydoc.validate import validate

import mrczdask
from tests.layer_rules import MODULES, module_name

# What is not asked for: an extended summary and See Also (the summary may say it all), closing quotes on a line of
# their own, capitals and full stops inside parameter lists, the one-word type line of Returns; and the infinitive:
# the check takes every first word that ends in s for a verb ("Counts of ...").
NOT_ASKED = {"GL02", "ES01", "SA01", "SA04", "PR08", "PR09", "RT02", "RT04", "RT05", "SS05"}

# A class whose fields are documented one by one is a result: the function that returns it has the example.
NOT_ASKED_OF_RESULTS = NOT_ASKED | {"PR01", "EX01"}

# Methods and properties are short: a summary, and what parameters they have.
NOT_ASKED_OF_MEMBERS = NOT_ASKED | {"EX01", "RT01", "PR01"}


def public_names() -> Iterator[str]:
    """Yield the dotted path of every public function and class: those of the package and of its public modules."""
    for name in mrczdask.__all__:
        value = getattr(mrczdask, name)
        if inspect.ismodule(value):
            yield from (f"{value.__name__}.{inner}" for inner in value.__all__ if callable(getattr(value, inner)))
        elif callable(value):
            yield f"{value.__module__}.{name}"


def resolve(path: str) -> object:
    """Return the object behind a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def missing_raises(function: object) -> list[str]:
    """Return the exceptions a function raises itself without a Raises section that names them."""
    if not inspect.isfunction(function):
        return []
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = {_exception(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None}
    section = (inspect.getdoc(function) or "").partition("\nRaises\n------\n")[2]
    return sorted(name for name in raised - {""} if name not in section)


def _exception(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) and node.id[0].isupper() else ""


def documents_fields(owner: type) -> bool:
    """Tell whether a class documents its fields: in an Attributes section or by a string below each."""
    if "\nAttributes\n-----" in (inspect.getdoc(owner) or ""):
        return True
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body  # type: ignore[attr-defined]
    below = [after for node, after in zip(body, [*body[1:], None], strict=True) if isinstance(node, ast.AnnAssign)]
    return bool(below) and all(isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) for after in below)


def faults(path: str) -> list[str]:
    """Return what a docstring lacks, one line each."""
    value = resolve(path)
    not_asked = NOT_ASKED_OF_RESULTS if inspect.isclass(value) and documents_fields(value) else NOT_ASKED
    found = [f"{code} {text}" for code, text in validate(path)["errors"] if code not in not_asked]
    return found + [f"Raises lacks {name}" for name in missing_raises(value)]


PUBLIC = sorted(public_names())


def undocumented(a: int) -> None:
    """does a thing"""
    raise KeyError(a)


def documented(a: int) -> int:
    """Double a number.

    Parameters
    ----------
    a : int
        The number.

    Returns
    -------
    int
        Twice the number.

    Raises
    ------
    ValueError
        When it is negative.

    Examples
    --------
    >>> documented(2)
    4
    """
    if a < 0:
        raise ValueError(a)
    return 2 * a


@pytest.mark.parametrize("path", PUBLIC)
def test_a_public_name_is_documented(path: str) -> None:
    found = faults(path)
    assert not found, "\n".join(found)


def test_a_docstring_that_lacks_everything_is_found() -> None:
    found = faults(f"{__name__}.undocumented")
    assert {fault.split()[0] for fault in found} == {"SS02", "SS03", "PR01", "EX01", "Raises"}
    assert faults(f"{__name__}.documented") == []


def members(path: str) -> Iterator[str]:
    """Yield the public methods and properties that a class of this package defines itself."""
    owner = resolve(path)
    if inspect.isclass(owner):
        for name, member in vars(owner).items():
            kinds = (classmethod, staticmethod, property)
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds)):
                yield f"{path}.{name}"


@pytest.mark.parametrize("path", [member for path in PUBLIC for member in members(path)])
def test_a_public_member_is_documented(path: str) -> None:
    found = [f"{code} {text}" for code, text in validate(path)["errors"] if code not in NOT_ASKED_OF_MEMBERS]
    assert not found, "\n".join(found)


EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)
WITH_EXAMPLES = [module_name(path) for path in MODULES if EXAMPLE.search(path.read_text(encoding="utf-8"))]


def examples(name: str) -> list[doctest.DocTest]:
    """Return the examples of a module, each of which imports what it uses."""
    found = doctest.DocTestFinder().find(importlib.import_module(name), globs={})
    return [example for example in found if example.examples]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for example in examples(name):
        runner.run(example, out=report.append)
    assert not runner.summarize(verbose=False).failed, "".join(report)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_no_example_is_overlooked(name: str) -> None:
    source = inspect.getsource(importlib.import_module(name))
    assert sum(len(example.examples) for example in examples(name)) == len(EXAMPLE.findall(source))
