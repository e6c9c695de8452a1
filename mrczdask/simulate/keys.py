"""Keys of the random numbers: what is drawn depends on seed, name and purpose, never on the order of work."""

from __future__ import annotations

import hashlib


def key_of(seed: int, name: str, purpose: str) -> int:
    """64-bit key of a counter-based generator."""
    text = "\0".join((str(int(seed)), name, purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
