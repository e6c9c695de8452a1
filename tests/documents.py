"""Reads the documents: their code blocks, links and make targets."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLOW = "<!-- slow -->"

_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `<!-- slow -->` in the line above it marks the test of its document as slow."""

    language: str
    text: str
    line: int
    slow: bool


def blocks(markdown: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    found, lines = [], markdown.splitlines()
    opening = None
    for number, line in enumerate(lines):
        if line.startswith("```") and opening is None:
            opening = number
        elif line.rstrip() == "```" and opening is not None:
            language = lines[opening].removeprefix("```").strip()
            slow = opening > 0 and lines[opening - 1].strip() == SLOW
            found.append(Block(language, "\n".join(lines[opening + 1 : number]), opening + 2, slow))
            opening = None
    if opening is not None:
        raise ValueError(f"the block opened in line {opening + 1} is not closed")
    return found


def commands(block: Block) -> list[str]:
    """Return the commands of a shell block, without comments and empty lines."""
    joined = block.text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def links(markdown: str) -> list[str]:
    """Return the files that a document links to or shows, without anchors."""
    targets = (target.partition("#")[0] for target in _LINK.findall(markdown))
    return [target for target in targets if target and "://" not in target]


def make_targets() -> set[str]:
    """Return the targets that `make help` lists."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))


def extras() -> set[str]:
    """Return the optional dependencies that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def documents() -> Iterator[Path]:
    """Yield every document of the repository."""
    yield from sorted(ROOT.glob("*.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))
