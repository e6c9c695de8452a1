"""Options of the peaks, which peaks and sparsify share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

_ICE_WIDTH: Final = {"q_A^-1": 0.02, "q_nm^-1": 0.2}
"""Of the rings of ice that are left out: that of `ice_rings`, in the units in which they are known."""


@Parameter(name="*")
@dataclass(frozen=True)
class Peaks:
    """How the peaks of diffraction frames are found."""

    cutoff_peak: float = 5.0
    """A peak stands out by so many deviations of the background."""
    patch_size: int = 5
    """Side of the square around a peak, in pixels."""
    connected: int = 3
    """Least pixels of it that stand out."""
    max_pixels: int | None = None
    """Most pixels of it that stand out: edges of shadows have more. By default as many as it has."""
    exclude: Annotated[tuple[tuple[float, float], ...], Parameter(negative="", show_default=False)] = ()
    """A ring without peaks, from one radius to another in the unit of the radius; may be given again."""
    ice: Annotated[bool, Parameter(negative="")] = False
    """Leave out the rings of hexagonal ice too, where the radius is in q_A^-1 or q_nm^-1."""
    gaps: Literal["fill", "ignore", "void"] = "fill"
    """Masked pixels beside a peak: fill them from the peak, ignore them as published, or void the peak."""
    border: Literal["void", "keep"] = "void"
    """A square over the border of the frame: void the peak, as published, or keep it, the border being a gap."""
    centroid: Literal["weighted", "plain"] = "weighted"
    """Of a peak: weighted by a Gaussian about itself, or plain as published."""
    counts_per_photon: float = 1.0
    """Gain of the detector, for the counting noise of a peak."""

    def options(self, unit: str) -> dict[str, Any]:
        """What `find_peaks` takes, the radius being in a unit."""
        given = dict(vars(self))
        rings = list(self.exclude)
        if given.pop("ice"):
            from mrczdask.diffraction.peaks import ice_rings

            rings += ice_rings(_ICE_WIDTH.get(unit, 1.0), unit=unit)
        return given | {"exclude": rings}


DEFAULT: Final = Peaks()
