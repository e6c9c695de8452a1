"""An MRC or MRCZ file opened: its reader, and coords and attrs from the header, the extended header and the mdoc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.formats.extended_header import parse_extended_header
from mrczdask.formats.mrc import MrcHeader, parse_header
from mrczdask.formats.mrc_fields import HEADER_BYTES
from mrczdask.io.index import find_frames
from mrczdask.io.mrc_reader import MrcReader
from mrczdask.io.reader import MovieFile
from mrczdask.io.source import Source, is_wrapped, open_source

Truncated = Literal["error", "readable"]
MAX_EXTENDED_READ = 256 << 20
"""A larger extended header is skipped: it holds no metadata that is read here."""


def open_mrc(
    url: str,
    *,
    signed: bool | None = None,
    truncated: Truncated = "error",
    storage_options: Mapping[str, Any] | None = None,
) -> MovieFile:
    """Open an MRC or MRCZ file without reading a pixel."""
    try:
        with open_source(url, storage_options) as source:
            return _open(source, url, signed, truncated == "readable", storage_options)
    except MrcFormatError as error:
        raise error.at(url) from None
