"""From electrons to digital numbers in an integrating detector."""

from __future__ import annotations

from dataclasses import dataclass

from mrczdask.simulate.checks import check_range


@dataclass(frozen=True, kw_only=True)
class Readout:
    """An integrating detector: the charge of the electrons is read, not their number.

    Parameters
    ----------
    counts_per_electron : float
        Digital numbers an electron gives.
    offset : float
        Digital numbers of no electron.
    read_noise : float
        Standard deviation of the read noise in electrons.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Notes
    -----
    raw = counts_per_electron (response**gamma electrons + pattern + read_noise normal) + offset, rounded and clipped
    for integer dtypes. The gain multiplies what was detected; in a counting detector it changes the probability to
    be counted, so that counts stay Poisson.

    Examples
    --------
    >>> import mrczdask as md
    >>> ccd = md.simulate.Readout(counts_per_electron=8.0, offset=100.0, read_noise=0.5)
    >>> movie, _ = md.simulate.movie((4, 64, 64), dose=10.0, readout=ccd, dtype="uint16")
    >>> bool(abs(movie.mean() - 180) < 2)
    True
    """

    counts_per_electron: float = 1.0
    offset: float = 0.0
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        check_range("Readout", {"counts_per_electron": self.counts_per_electron}, 1e-6)
        check_range("Readout", {"offset": self.offset}, -1e6)
        check_range("Readout", {"read_noise": self.read_noise}, 0)
