"""The additive pattern of the read-out electronics, stable or changing with the dose the detector has seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.wander import fill_wander
from mrczdask.simulate.checks import check_range
from mrczdask.simulate.fields import flat_image, normal_image
from mrczdask.simulate.keys import key_of

LINE_TERMS: Final = 16
PIXEL_TERMS: Final = 4
"""Cosines of a changing line and of a changing pixel: the law of the correlation is exact for any number, the
distribution of the values is near normal for many."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Counts that the electronics add to every frame, in electrons per pixel and frame.

    Parameters
    ----------
    level : float
        Mean of the pattern: the dark level.
    column_sd, row_sd, pixel_sd : float
        Standard deviation between columns, between rows (read-out lines) and between pixels.
    stable : float
        Share of the variance that never changes, 0 to 1. The default 1 is a fixed pattern.
    lifetime : float
        Dose in electrons per pixel after which the correlation of the changing part is one half.
    decay : float
        Exponent of the power law by which it falls, above 0 to 2. Below 0.1 it hardly falls.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Notes
    -----
    The pattern of two movies whose middles are D electrons per pixel apart has the correlation

        stable + (1 - stable) / (1 + (D / lifetime)**decay),

    which for D well above the lifetime is the law a D**-b + c of eq. 12 (b = 0.289). It is constant within a movie,
    and the same for a movie whatever else of the session is computed. In a counting detector it changes the expected
    count, which stays at least 0.

    References
    ----------
    McLeod et al., MRCZ, section 5.2, eq. 12 and Fig. 11.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> lines = md.simulate.Pattern(column_sd=0.1, stable=0.5, lifetime=4000.0)
    >>> _, truth = md.simulate.session(3, (4, 16, 4096), dose=250.0, dtype="uint16", pattern=lines)
    >>> first, _, last = truth.pattern.isel(y=0).compute()
    >>> float(lines.correlation(2000.0)) > 0.7
    True
    >>> bool(abs(np.corrcoef(first, last)[0, 1] - lines.correlation(2000.0)) < 0.05)
    True
    """

    level: float = 0.0
    column_sd: float = 0.0
    row_sd: float = 0.0
    pixel_sd: float = 0.0
    stable: float = 1.0
    lifetime: float = 4000.0
    decay: float = 0.289

    def __post_init__(self) -> None:
        parts = {name: value for name, value in asdict(self).items() if name.endswith(("_sd", "level"))}
        check_range("Pattern", parts, 0)
        check_range("Pattern", {"stable": self.stable}, 0, 1)
        check_range("Pattern", {"lifetime": self.lifetime}, 1e-9)
        check_range("Pattern", {"decay": self.decay}, 0.05, 2)

    @property
    def is_flat(self) -> bool:
        """Whether all pixels have the same level."""
        return not (self.column_sd or self.row_sd or self.pixel_sd)

    @property
    def is_zero(self) -> bool:
        """Whether nothing is added."""
        return self.is_flat and self.level == 0

    def correlation(self, dose: float) -> float:
        """Correlation of the pattern with itself, `dose` electrons per pixel later."""
        return self.stable + (1 - self.stable) / (1 + (abs(dose) / self.lifetime) ** self.decay)

    def image(self, seed: int, dose: float, rows: range, cols: range) -> NDArray[np.float32]:
        """(len(rows), len(cols)) after the detector has seen `dose` electrons per pixel."""
        out = flat_image(self.level, rows, cols)
        one = range(1)
        if self.column_sd:
            out += self._part(seed, "column", dose, self.column_sd, LINE_TERMS, one, cols)
        if self.row_sd:
            out += self._part(seed, "row", dose, self.row_sd, LINE_TERMS, one, rows).T
        if self.pixel_sd:
            out += self._part(seed, "pixel", dose, self.pixel_sd, PIXEL_TERMS, rows, cols)
        return out

    def _part(
        self, seed: int, name: str, dose: float, sd: float, terms: int, rows: range, cols: range
    ) -> NDArray[np.float32]:
        out = np.float32(sd * self.stable**0.5) * normal_image(key_of(seed, "", f"pattern {name}"), rows, cols)
        if self.stable < 1:
            moving = np.empty_like(out)
            key = np.uint64(key_of(seed, "", f"changing pattern {name}"))
            fill_wander(key, dose / self.lifetime, self.decay, terms, rows.start, cols.start, moving)
            out += np.float32(sd * (1 - self.stable) ** 0.5) * moving
        return out
