"""What a notebook shows of a movie or session, without reading a pixel."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.report.facts import describe, frame_bytes, header_facts, name_of

BARS: Final = 120
"""Bars of the chart of sizes; more frames share one."""
BAR_COLOUR: Final = "#4477aa"
"""Legible on light and dark pages, as the text and lines are, which take the colour of the page's text."""
_WIDTH, _HEIGHT = 400, 170
_LEFT, _TOP, _RIGHT, _BOTTOM = 34, 24, 8, 34
_WIDEST_BAR: Final = 28
_MOST_LINES: Final = 5
_MOST_LABELS: Final = 12


def movie_html(images: xr.DataArray) -> str:
    """HTML of any array: facts, a chart of the compressed size of every frame, and the header to unfold."""
    header = header_facts(images)._repr_html_() if schema.MRC_HEADER in images.encoding else ""
    steps = escape(str(images.attrs.get(schema.HISTORY, "")).strip())
    history = f"<pre style='margin:0;white-space:pre-wrap;font-size:12px'>{steps}</pre>" if steps else ""
    return (
        "<div style='font-size:13px;line-height:1.4;margin:4px 0'>"
        f"<div style='font-weight:600;font-size:15px;margin-bottom:6px'>{escape(_title(images))}</div>"
        "<div style='display:flex;flex-wrap:wrap;gap:12px 32px;align-items:flex-start'>"
        f"<div style='max-width:460px'>{describe(images)._repr_html_()}</div>{_sizes(images)}</div>"
        f"{_folded('MRC header', header)}{_folded('history', history)}</div>"
    )


def _title(images: xr.DataArray) -> str:
    movies = images.sizes.get(schema.MOVIE)
    return name_of(images) or (f"{movies} movies" if movies else str(images.name or "images"))


def _folded(summary: str, html: str) -> str:
    inside = f"<div style='margin:4px 0 4px 1.1em'>{html}</div>"
    return f"<details style='margin-top:6px'><summary>{summary}</summary>{inside}</details>" if html else ""


def _sizes(images: xr.DataArray) -> str:
    """The chart of compressed bits a pixel: a bar a frame, or a movie of a session."""
    stored = frame_bytes(images)
    if stored is None or not stored.size:
        return ""
    bits = stored * 8 / (images.sizes[schema.Y] * images.sizes[schema.X])
    return bar_chart(bits.mean(axis=1), schema.MOVIE) if len(bits) > 1 else bar_chart(bits[0], schema.FRAME)


def bar_chart(bits: NDArray[np.floating], along: str) -> str:
    """An inline SVG of bits per pixel: a bar a value, or the mean of a few; the pointer on one tells its value."""
    groups = np.array_split(np.arange(bits.size), min(BARS, bits.size))
    step = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    lines = _lines(float(bits.max()))
    bar = min(max(step - 1, 0.6 * step), _WIDEST_BAR)
    scale = (_HEIGHT - _TOP - _BOTTOM) / (lines[-1] or 1.0)
    base = _HEIGHT - _BOTTOM
    marks = [_line(base - scale * value, value) for value in lines]
    for k, group in enumerate(groups):
        mean = float(bits[group].mean())
        whose = f"{along} {group[0]}" if group.size == 1 else f"{along}s {group[0]} to {group[-1]}"
        marks.append(
            f"<rect x='{_LEFT + (k + 0.5) * step - bar / 2:.1f}' y='{base - scale * mean:.1f}' width='{bar:.1f}' "
            f"height='{scale * mean:.1f}' fill='{BAR_COLOUR}'><title>{whose}: {mean:.3f} bits per pixel</title></rect>"
        )
    places = range(bits.size) if bits.size <= _MOST_LABELS else {0, (bits.size - 1) // 2, bits.size - 1}
    marks += [_label(_LEFT + (k + 0.5) / bits.size * step * len(groups), base + 13, k) for k in sorted(places)]
    marks.append(_label((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, along))
    spread = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (bits.min(), bits.max())))
    title = f"{spread} compressed bits per pixel, {bits.size} {along}{'s' if bits.size > 1 else ''}"
    marks.append(_label(_LEFT, 12, title, "start"))
    return (
        f"<svg width='{_WIDTH}' height='{_HEIGHT}' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{title}' "
        f"style='font-size:11px;font-family:inherit;max-width:100%' fill='currentColor'>{''.join(marks)}</svg>"
    )


def _lines(highest: float) -> list[float]:
    """Round values from 0 to just above the highest."""
    if highest <= 0:
        return [0.0]
    power = 10.0 ** np.floor(np.log10(highest / _MOST_LINES))
    step = next(nice * power for nice in (1, 2, 5, 10) if highest <= nice * power * _MOST_LINES)
    return [float(k * step) for k in range(int(np.ceil(highest / step - 1e-9)) + 1)]


def _line(y: float, value: float) -> str:
    line = f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='currentColor' opacity='.2'/>"
    return line + _label(_LEFT - 6, y + 4, f"{value:g}", "end")


def _label(x: float, y: float, text: Any, anchor: str = "middle") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' opacity='.8'>{escape(str(text))}</text>"
