"""The multiplicative response of a detector: what a gain reference corrects."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.normal import normal_vector
from mrczdask.kernels.scenery import add_waves
from mrczdask.simulate.checks import check_range
from mrczdask.simulate.fields import flat_image, normal_image, smooth_waves
from mrczdask.simulate.keys import key_of

SMALLEST_RESPONSE: Final = 0.05
"""No working pixel answers less: a gain must stay a number."""
WAVELENGTHS: Final = (1 / 8, 1.0)
"""Shortest and longest of the smooth part, in sizes of the detector: a few sweeps over it, as in [M], Fig. 10."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Relative response of the pixels, a product of four parts of mean 1.

    Parameters
    ----------
    smooth_sd : float
        Standard deviation of slow variations over the detector: the thickness of the etched active layer.
    column_sd, row_sd : float
        Standard deviation between columns and between rows: amplifiers and converters.
    pixel_sd : float
        Standard deviation between pixels.

    Raises
    ------
    ValueError
        A standard deviation is not within 0 and 0.5.

    Notes
    -----
    response = (1 + smooth)(1 + column)(1 + row)(1 + pixel), all parts normal but the smooth one, a sum of 12 plane
    waves; never below 0.05. A movie holds ideal x response**gamma, so 1 / response is the gain reference to multiply
    with, and response the one to divide by.

    References
    ----------
    McLeod et al., MRCZ, sections 5 and 5.1; Sorzano et al., Blind estimation of DED camera gain, eq. 1.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie, truth = md.simulate.movie((8, 64, 64), dose=20, gain=md.simulate.Gain(column_sd=0.03))
    >>> truth.gain.attrs["convention"], truth.response.attrs["convention"]
    ('multiply', 'divide')
    >>> columns = truth.response.mean("y")
    >>> bool(abs(columns.std() - 0.03) < 0.01)
    True
    """

    smooth_sd: float = 0.0
    column_sd: float = 0.0
    row_sd: float = 0.0
    pixel_sd: float = 0.0

    def __post_init__(self) -> None:
        check_range("Gain", asdict(self), 0, 0.5)

    @property
    def is_flat(self) -> bool:
        """Whether all pixels answer alike."""
        return not any(asdict(self).values())

    def response(self, seed: int, size: tuple[int, int], rows: range, cols: range) -> NDArray[np.float32]:
        """(len(rows), len(cols)) of a detector of `size` (ny, nx)."""
        out = flat_image(1.0, rows, cols)
        if self.smooth_sd:
            shortest, longest = (share * max(size) for share in WAVELENGTHS)
            waves = smooth_waves(key_of(seed, "", "gain smooth"), self.smooth_sd, shortest, longest)
            add_waves(waves, rows.start, cols.start, 0.0, 0.0, out)
        out *= _line(self.column_sd, key_of(seed, "", "gain column"), cols)
        out *= _line(self.row_sd, key_of(seed, "", "gain row"), rows)[:, None]
        if self.pixel_sd:
            out *= 1 + np.float32(self.pixel_sd) * normal_image(key_of(seed, "", "gain pixel"), rows, cols)
        return np.maximum(out, np.float32(SMALLEST_RESPONSE), out=out)


def _line(sd: float, key: int, part: range) -> NDArray[np.float32]:
    return (1 + sd * normal_vector(key, part.stop)[part.start :]).astype(np.float32)
