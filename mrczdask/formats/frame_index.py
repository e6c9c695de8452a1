"""Frame indexes: the Zarr v3 shard footer behind the last chunk, and the sidecar beside the file.

A footer is 16 bytes a frame, (offset u8, nbytes u8), then the crc32c of them in 4 bytes: with it the same bytes are
an MRCZ file and a Zarr v3 shard (`index_location: end`).
"""

from __future__ import annotations

import json
from typing import Any, Final

import google_crc32c
import numpy as np

from mrczdask.formats.mrcz import FrameTable

CHECKSUM_BYTES: Final = 4
ENTRY_BYTES: Final = 16
SIDECAR_SUFFIX: Final = ".index.json"
_SIDECAR_VERSION: Final = 1


def footer_bytes(n_frames: int) -> int:
    """Size of the footer of a movie of `n_frames`."""
    return ENTRY_BYTES * n_frames + CHECKSUM_BYTES


def pack_footer(table: FrameTable) -> bytes:
    """The shard index of `table`."""
    entries = np.stack([table.offsets, table.lengths], axis=1).astype("<u8").tobytes()
    return entries + google_crc32c.value(entries).to_bytes(CHECKSUM_BYTES, "little")


def parse_footer(raw: bytes) -> FrameTable | None:
    """Read a footer from exactly its bytes; None where the checksum says that it is none."""
    entries, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
    if len(entries) % ENTRY_BYTES or google_crc32c.value(entries).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        return None
    pairs = np.frombuffer(entries, "<u8").reshape(-1, 2).astype(np.uint64)
    return FrameTable(pairs[:, 0].copy(), pairs[:, 1].copy())


def pack_sidecar(table: FrameTable, fingerprint: dict[str, Any]) -> bytes:
    """The index as JSON, with the `fingerprint` (size, mtime or etag) of the file it was made of."""
    document = {
        "mrczdask_index": _SIDECAR_VERSION,
        "file": fingerprint,
        "first": int(table.offsets[0]) if len(table) else 0,
        "lengths": table.lengths.tolist(),
    }
    return json.dumps(document).encode()


def parse_sidecar(raw: bytes) -> tuple[FrameTable, dict[str, Any]] | None:
    """Read a sidecar; None where it is none."""
    try:
        document = json.loads(raw)
        if document["mrczdask_index"] != _SIDECAR_VERSION:
            return None
        lengths = np.array(document["lengths"], np.uint64)
        if lengths.ndim != 1:
            return None
        starts = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths)])[: len(lengths)]
        return FrameTable(starts + np.uint64(document["first"]), lengths), dict(document["file"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
