"""What was done to an array: a line of `history` for people, a JSON record in `provenance` for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

import mrczdask
from mrczdask import schema


def record(attrs: Mapping[str, Any], operation: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Attributes with one more operation recorded.

    Parameters
    ----------
    attrs : mapping
        Attributes of the input: their records are kept before the new one.
    operation : str
        Name of the verb.
    parameters : mapping, optional
        What it was called with. Arrays are named by dtype and shape, not stored.

    Returns
    -------
    dict
        `attrs` with one more line in `history` and one more entry in the JSON list `provenance`.
    """
    plain = {name: _plain(value) for name, value in (parameters or {}).items() if value is not None}
    called = ", ".join(f"{name}={value!r}" for name, value in plain.items())
    lines = [line for line in str(attrs.get(schema.HISTORY, "")).split("\n") if line]
    lines.append(f"mrczdask {mrczdask.__version__}: {operation}({called})")
    entry = {"operation": operation, "parameters": plain, "version": mrczdask.__version__}
    return {
        **attrs,
        schema.HISTORY: "\n".join(lines),
        schema.PROVENANCE: json.dumps([*records(attrs), entry]),
    }


def records(attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The operations recorded so far, oldest first."""
    try:
        entries = json.loads(attrs.get(schema.PROVENANCE, "[]"))
    except (TypeError, ValueError):
        return []
    return entries if isinstance(entries, list) else []


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"array {value.dtype} {tuple(value.shape)}"
    return str(value)
