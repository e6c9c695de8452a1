"""What is known of a movie without reading a pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.formats.mrc_fields import COMPRESSORS
from mrczdask.io.movie_array import movie_array
from mrczdask.io.mrc_reader import MrcReader
from mrczdask.io.plain_attrs import metadata_of

if TYPE_CHECKING:
    from mrczdask.formats.mrc import MrcHeader

_OPTICS: Final = {
    schema.PIXEL_SIZE: ("pixel size", "Å"),
    schema.VOLTAGE: ("voltage", "kV"),
    schema.SPHERICAL_ABERRATION: ("spherical aberration", "mm"),
    schema.COUNTS_PER_ELECTRON: ("counts per electron", ""),
}
_NOT_SHOWN: Final = {schema.URL, schema.MOVIE, schema.FRAME, schema.Y, schema.X}
_LONGEST: Final = 160
"""Characters of a value; the rest is left out."""
_BYTE_ORDERS: Final = {"<": "little-endian", ">": "big-endian"}
_CELL: Final = "text-align:left;vertical-align:top;padding:1px 1.2em 1px 0;border:0;background:none;"
_MUTED: Final = "opacity:.65;"


class Facts(Mapping[str, Any]):
    """Values by name, with units, that print as a table.

    Examples
    --------
    >>> from mrczdask.report.facts import Facts
    >>> Facts({"voltage": (300.0, "kV"), "labels": (("MRCZ0.6.0",), "")})
    voltage  300 kV
    labels   MRCZ0.6.0
    """

    def __init__(self, facts: Mapping[str, tuple[Any, str]]):
        self._facts = dict(facts)

    def __getitem__(self, name: str) -> Any:
        return self._facts[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def unit(self, name: str) -> str:
        """The unit of a value, "" where it has none."""
        return self._facts[name][1]

    def __repr__(self) -> str:
        width = max(map(len, self._facts), default=0)
        rows = (f"{name:{width}}  {_text(value)} {unit}".rstrip() for name, (value, unit) in self._facts.items())
        return "\n".join(rows) or "nothing is known"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr style='background:none'><td style='{_CELL}{_MUTED}white-space:nowrap'>{escape(name)}</td>"
            f"<td style='{_CELL}'>{escape(_text(value))} <span style='{_MUTED}'>{escape(unit)}</span></td></tr>"
            for name, (value, unit) in self._facts.items()
        )
        return f"<table style='border-collapse:collapse;margin:0;font-size:inherit'>{rows}</table>"


def _text(value: Any) -> str:
    """A value as a person reads it: few digits, no brackets, not too long."""
    if isinstance(value, dict):
        text = ", ".join(f"{name}: {_text(part)}" for name, part in value.items())
    elif isinstance(value, tuple | list | np.ndarray):
        text = (" × " if len(value) and isinstance(value[0], int | float) else "; ").join(_text(part) for part in value)
    elif isinstance(value, float | np.floating):
        text = f"{value:.5g}"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def name_of(images: xr.DataArray) -> str:
    """The name of the movie, where the array holds one."""
    name = images.coords.get(schema.MOVIE)
    return str(name.item()) if name is not None and name.ndim == 0 else ""


def header_facts(images: xr.DataArray) -> Facts:
    """The MRC header the file was opened with; of other arrays the optics, which are attributes."""
    header: MrcHeader | None = images.encoding.get(schema.MRC_HEADER)
    return _optics(images) if header is None else Facts(_header(header))


def _header(header: MrcHeader) -> dict[str, tuple[Any, str]]:
    facts: dict[str, tuple[Any, str]] = {
        "shape": (header.shape, "frames, rows, columns"),
        "mode": (header.mode, "4 bits a pixel" if header.packed4 else _pixel_type(header)),
        "compression": (COMPRESSORS.get(header.compressor, "unknown"), ""),
        "byte order": (_BYTE_ORDERS[header.byte_order], ""),
        "z-slices a frame": (header.slices if header.slices > 1 else None, ""),
        "pixel size": (header.pixel_size, "Å"),
        "voltage": (header.voltage_kv, "kV"),
        "spherical aberration": (header.spherical_aberration_mm, "mm"),
        "counts per electron": (header.counts_per_electron, ""),
        "origin": (header.origin if any(header.origin) else None, "Å"),
    }
    if header.statistics is not None:
        facts |= {name: (getattr(header.statistics, name), "counts") for name in ("minimum", "maximum", "mean", "rms")}
    facts |= {
        "space group": (header.ispg, ""),
        "extended header": (header.nsymbt or None, f"bytes, type {header.exttyp or 'not named'}"),
        "format version": (header.nversion or None, ""),
        "labels": (header.labels or None, ""),
    }
    return {name: fact for name, fact in facts.items() if fact[0] is not None}


def _pixel_type(header: MrcHeader) -> str:
    parts = header.stored.shape
    name = header.stored.base.name if header.signed_known else f"{header.stored.base.name}, or unsigned"
    return f"{name} × {parts[0]}" if parts else name


def _optics(images: xr.DataArray) -> Facts:
    return Facts({shown: (images.attrs[name], unit) for name, (shown, unit) in _OPTICS.items() if name in images.attrs})


def describe(images: xr.DataArray) -> Facts:
    """What a person wants to know of a movie or session, name by name; no pixel is read."""
    about: dict[str, tuple[Any, str]] = {
        "shape": (", ".join(f"{dim} {size}" for dim, size in images.sizes.items()), ""),
        "pixels": (f"{images.dtype}, {_size(images.nbytes)}", ""),
    }
    stored = frame_bytes(images)
    if stored is not None and stored.sum():
        about["stored"] = f"{_size(stored.sum())}, {images.nbytes / stored.sum():.1f} times smaller", ""
    if images.chunks is not None:
        largest = tuple(max(sizes) for sizes in images.chunks)
        memory = _size(int(np.prod(largest)) * images.dtype.itemsize)
        about["chunks"] = f"{int(np.prod([len(sizes) for sizes in images.chunks]))} of {_text(largest)}, {memory}", ""
    optics = _optics(images)
    about |= {name: (value, optics.unit(name)) for name, value in optics.items()}
    for name, coord in images.coords.items():
        if name not in _NOT_SHOWN and coord.chunks is None and coord.ndim <= 1 and coord.size:
            about |= {str(name).replace("_", " "): _range(coord)}
    if schema.METADATA in images.attrs:
        about["metadata"] = metadata_of(images.attrs), ""
    notes = images.encoding.get(schema.NOTES)
    return Facts(about | ({"not understood": (notes, "")} if notes else {}))


def _range(coord: xr.DataArray) -> tuple[str, str]:
    """First and last value of a coordinate, and its unit."""
    ends = np.ravel(coord.values)[[0, -1]]
    if coord.dtype.kind == "M":
        ends = np.char.replace(np.datetime_as_string(ends, "s"), "T", " ")
    texts = list(dict.fromkeys(_text(end) for end in ends))
    return " to ".join(texts), str(coord.attrs.get("units", "")).replace("angstrom^2", "Å²").replace("angstrom", "Å")


def _size(n_bytes: float) -> str:
    """A size in powers of ten, as disks are sold."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.3g} {unit}" if n_bytes < 999.5 * factor else f"{n_bytes / factor:,.0f} {unit}"
    return f"{int(n_bytes)} bytes"


def frame_bytes(images: xr.DataArray) -> NDArray[np.float64] | None:
    """Compressed bytes of every frame (movie, frame) of an MRCZ movie or session as opened; else None."""
    source = movie_array(images.data) if images.chunks is not None else None
    readers = [] if source is None else [r for r in source.readers if isinstance(r, MrcReader) and r.compressed]
    if source is None or len(readers) < len(source.readers):
        return None
    return np.array([reader.table.lengths for reader in readers], float)
