"""Attributes in the forms that every file of arrays holds: numbers, text and lists of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mrczdask import schema


def plain_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as netCDF takes them: what is nested, empty or a list of texts becomes JSON, a truth value 0 or 1."""
    return {str(name): _plain(value) for name, value in attrs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist()) if value.ndim != 1 or value.dtype.kind not in "iuf" or not value.size else value
    if isinstance(value, str | int | float | np.integer | np.floating | bytes):
        return value
    if isinstance(value, complex | np.datetime64 | np.timedelta64):
        return str(value)
    is_flat = isinstance(value, list | tuple) and len(value) > 0
    if is_flat and all(_is_number(one) for one in value):
        return list(value)
    return json.dumps(value, default=str, ensure_ascii=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def metadata_of(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The metadata a file held as JSON, as Python objects; {} where there are none."""
    held = attrs.get(schema.METADATA)
    if isinstance(held, str):
        try:
            held = json.loads(held)
        except ValueError:  # a text of somebody's own
            held = {schema.METADATA: held}
    return dict(held) if isinstance(held, Mapping) else {}
