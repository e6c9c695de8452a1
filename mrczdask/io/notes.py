"""Notes on what of a file was not taken as it stands: one warning where files are opened."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mrczdask import schema
from mrczdask.errors import MrczdaskWarning

_LISTED: Final = 3


def warn_of_notes(opened: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Warn once of the notes in the encodings of (url, encoding); each note with the files that it is of."""
    of: dict[str, list[str]] = {}
    for url, encoding in opened:
        for note in encoding.get(schema.NOTES, ()):
            of.setdefault(note, []).append(url)
    if of:
        text = "; ".join(f"{_listed(urls)}: {note}" for note, urls in of.items())
        warnings.warn(text, MrczdaskWarning, stacklevel=3)


def _listed(urls: list[str]) -> str:
    more = f" and {len(urls) - _LISTED} more" if len(urls) > _LISTED else ""
    return ", ".join(urls[:_LISTED]) + more
