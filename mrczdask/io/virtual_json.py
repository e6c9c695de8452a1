"""References of kerchunk in JSON, read entry by entry into columns: as lists they would take ten times the memory."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_MOST: Final = 2**63
"""Offsets and lengths below it are kept in columns."""


class Entries:
    """Keys and what they stand for; `[url, offset, length]` takes a few bytes besides its key."""

    def __init__(self) -> None:
        self.others: dict[str, Any] = {}
        """Entries that are no byte ranges: metadata, labels, and what should not be there."""
        self._rows: dict[str, int] = {}
        self._urls: dict[str, int] = {}
        self._url, self._offset, self._length = array("L"), array("Q"), array("Q")

    def add(self, key: str, value: Any) -> None:
        """Keep an entry, in place of an earlier one of the same key."""
        if not _is_range(value):
            self._rows.pop(key, None)
            self.others[key] = value
            return
        self.others.pop(key, None)
        self._rows[key] = len(self._url)
        self._url.append(self._urls.setdefault(value[0], len(self._urls)))
        self._offset.append(value[1])
        self._length.append(value[2])

    def get(self, key: str) -> Any:
        """What a key stands for, as the file has it; None for one that is not there."""
        row = self._rows.get(key)
        if row is None:
            return self.others.get(key)
        number = self._url[row]
        url = next(url for url, each in self._urls.items() if each == number)
        return [url, self._offset[row], self._length[row]]

    def __iter__(self) -> Iterator[str]:
        yield from self.others
        yield from self._rows


def _is_range(value: Any) -> bool:
    if type(value) is not list or len(value) != 3 or type(value[0]) is not str:
        return False
    return all(type(n) is int and 0 <= n < _MOST for n in value[1:])


def read_entries(raw: bytes) -> tuple[Entries, Entries | None]:
    """The entries of the document, and those of its object `refs`, where it has one.

    Raises
    ------
    ValueError
        It is no JSON, or no object.
    """
    scanner = _Scanner(raw.decode())
    top, refs = Entries(), None
    for key in scanner.members():
        if key == "refs" and scanner.next_is("{"):
            refs = Entries()
            for inside in scanner.members():
                refs.add(inside, scanner.value())
        else:
            top.add(key, scanner.value())
    scanner.end()
    return top, refs


class _Scanner:
    """Goes through JSON value by value."""

    def __init__(self, text: str):
        self._text, self._at = text, 0
        self._decode = json.JSONDecoder().raw_decode

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; the value of each is to be taken before the next."""
        self._take("{")
        if self.next_is("}"):
            self._take("}")
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError("a key of an object is no string")
            self._take(":")
            yield key
            if self.next_is("}"):
                self._take("}")
                return
            self._take(",")

    def value(self) -> Any:
        """The next value."""
        self._skip()
        value, self._at = self._decode(self._text, self._at)
        return value

    def next_is(self, mark: str) -> bool:
        """Whether the next character is this one."""
        self._skip()
        return self._text.startswith(mark, self._at)

    def end(self) -> None:
        """Nothing may follow."""
        self._skip()
        if self._at < len(self._text):
            raise ValueError("something follows the document")

    def _take(self, mark: str) -> None:
        if not self.next_is(mark):
            raise ValueError(f"{mark!r} was expected at character {self._at}")
        self._at += 1

    def _skip(self) -> None:
        if self._text[self._at : self._at + 1].isspace():
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
