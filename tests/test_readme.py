"""What the documents show is true: every block of code runs, every link leads somewhere, every make target exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT, Block, blocks, commands, documents, extras, links, make_targets

SHELL = {"bash", "sh"}
PLAIN = {"text"}
TIMEOUT_S = 240

DOCUMENTS = [str(path.relative_to(ROOT)) for path in documents()]


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def run_blocks(found: list[Block], folder: Path) -> list[str]:
    """Run blocks in order as a reader would, Python in one namespace, commands in `folder`; return what was run."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    ran: list[str] = []
    for block in found:
        if block.language == "python":
            exec(compile(block.text, f"block in line {block.line}", "exec"), namespace)
            ran.append(block.text)
        elif block.language in SHELL:
            ran += [run_command(line, folder) for line in commands(block)]
        elif block.language not in PLAIN:
            raise AssertionError(f"line {block.line}: a block is bash, python or text, not {block.language!r}")
    return ran


def run_command(line: str, folder: Path) -> str:
    """Run a command with this environment's programs first; a make target or an installation is only looked up."""
    if line.startswith("make "):
        target = line.split()[1]
        assert target in make_targets(), f"{line}: there is no such target"
    elif re.match(r"(python\S* -m )?pip install\b", line):
        named = {name for group in re.findall(r"\[([^\]]+)\]", line) for name in group.split(",")}
        assert named <= extras(), f"{line}: there is no extra {named - extras()}"
    else:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": path}
        done = subprocess.run(
            ["sh", "-ec", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return line


def _with_mark(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.slow] if any(block.slow for block in blocks(_read(name))) else [])


@pytest.mark.parametrize("name", [_with_mark(name) for name in DOCUMENTS])
def test_the_blocks_of_a_document_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(blocks(_read(name)), tmp_path)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_a_document_lead_to_files(name: str) -> None:
    assert [target for target in links(_read(name)) if not (ROOT / name).parent.joinpath(target).exists()] == []


def test_the_readme_shows_commands_and_python() -> None:
    found = blocks(_read("README.md"))
    shown = [line for block in found if block.language in SHELL for line in commands(block)]
    assert {"make demo", "make test"} <= set(shown)
    assert any(line.startswith("mrczdask ") for line in shown)
    assert any(block.language == "python" for block in found)


@pytest.mark.parametrize("target", sorted(make_targets()))
def test_a_make_target_can_be_planned(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    scripts = re.findall(r"(?<= )(\w+/[\w/]+\.py)", done.stdout)
    assert [script for script in scripts if not (ROOT / script).exists()] == []


SAMPLE = """
```python
answer = 6 * 7
```
<!-- slow -->
```bash
# a comment
echo $((6 * 7)) \\
    > answer.txt
```
```python
from pathlib import Path
assert int(Path("answer.txt").read_text()) == answer
```
"""


def test_blocks_share_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run_blocks(blocks(SAMPLE), tmp_path)) == 3


def test_a_slow_block_is_known_by_the_mark_above_it() -> None:
    assert [block.slow for block in blocks(SAMPLE)] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\nmake coffee\n```", "there is no such target"),
        ("```bash\nfalse\n```", "false"),
        ("```bash\npip install '.[em,tea]'\n```", "no extra {'tea'}"),
        ("```python\nassert 1 == 2, 'arithmetic'\n```", "arithmetic"),
        ("```\nmrczdask info\n```", "a block is bash, python or text"),
    ],
)
def test_a_block_that_fails_is_found(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        run_blocks(blocks(text), tmp_path)


def test_a_block_that_is_not_closed_is_found() -> None:
    with pytest.raises(ValueError, match="opened in line 2 is not closed"):
        blocks("text\n```python\n1 + 1\n")


def test_links_are_files() -> None:
    assert links("[a](b.md#c) ![d](docs/e.png) [f](https://g.h/i) [j](#k)") == ["b.md", "docs/e.png"]
