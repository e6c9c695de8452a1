"""Where the pixels of a detector stand: radius, solid angle and polarization of each, and which are bad."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrczdaskError
from mrczdask.io.detector_maps import SCALES, UNITS, DetectorMaps, Facts, FlatMaps, Unit, check_unit
from mrczdask.io.panel_geometry import PanelMaps, read_panels
from mrczdask.io.poni_geometry import read_poni
from mrczdask.io.validity import Marks, Validity

__all__ = ["SCALES", "UNITS", "Geometry", "Unit", "check_unit"]

_NO_SIZE: Final = (1.0, 1.0)
"""Sides of a pixel in metres, of a detector that is described in pixels."""


_VALUES: Final = ("validity", "marks", "counts_per_photon", "unread_masks")
"""What a geometry knows of the numbers in frames."""


class Geometry:
    """Geometry of a detector: made by `from_poni`, `from_geom` or `flat`, the same for every frame.

    Attributes
    ----------
    shape : tuple of int
        (y, x) of the frames.
    mask : numpy.ndarray of bool
        (y, x), True = bad: gaps and dead pixels the detector is known for.
    distance_m : float
        From the sample to the detector.
    pixel_size_m : tuple of float
        (y, x).
    beam_center : tuple of float
        (y, x) in pixels, 0 at the outer edge of the first pixel.
    wavelength_m : float or None
    maps : DetectorMaps
        What radius, azimuth, positions and correction are asked of.
    validity : Validity
        Which numbers are counts, where the file says it: `flag_lessthan`, `flag_morethan` and `flag_equal` of a .geom.
    marks : Marks or None
        Numbers of invalid pixels that the detector is known for by its name, as pyFAI has them.
    counts_per_photon : float or None
        Gain of the detector, where the file says it.
    unread_masks : tuple of str
        Masks in data files that a .geom file names, and no frames were given for.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        distance_m: float,
        pixel_size_m: tuple[float, float],
        beam_center: tuple[float, float],
        wavelength_m: float | None = None,
        mask: NDArray[Any] | None = None,
        source: str = "",
        maps: DetectorMaps | None = None,
        validity: Validity | None = None,
        marks: Marks | None = None,
        counts_per_photon: float | None = None,
        unread_masks: tuple[str, ...] = (),
    ):
        self.shape = (int(shape[0]), int(shape[1]))
        self.distance_m, self.pixel_size_m, self.beam_center = distance_m, pixel_size_m, beam_center
        self.wavelength_m, self.source = wavelength_m, source
        self.validity, self.marks, self.counts_per_photon = validity or Validity(), marks, counts_per_photon
        self.unread_masks = unread_masks
        self.mask = np.zeros(self.shape, bool) if mask is None else np.asarray(mask, bool)
        if self.mask.shape != self.shape:
            raise MrczdaskError(f"the mask has the shape {self.mask.shape}, the detector {self.shape}")
        self._flat = FlatMaps(Facts(self.shape, distance_m, pixel_size_m, beam_center, wavelength_m))
        self.maps = maps or self._flat

    @classmethod
    def flat(
        cls,
        shape: Sequence[int],
        *,
        distance_m: float = 1.0,
        pixel_size_m: float | tuple[float, float] = 1.0,
        beam_center: tuple[float, float] | None = None,
        wavelength_m: float | None = None,
        mask: NDArray[Any] | None = None,
    ) -> Geometry:
        """A flat detector perpendicular to the beam.

        Parameters
        ----------
        shape : sequence of int
            (y, x) of the frames.
        distance_m : float
            From the sample to the detector, in metres.
        pixel_size_m : float or (float, float)
            Side of a pixel, or (y, x), in metres.
        beam_center : (float, float), optional
            (y, x) in pixels, counted from the outer edge of the first pixel: (y/2, x/2) by default.
        wavelength_m : float, optional
            Needed for q.
        mask : array of bool, optional
            (y, x), True = bad.

        Returns
        -------
        Geometry

        Raises
        ------
        MrczdaskError
            The mask does not fit.

        Examples
        --------
        >>> import mrczdask as md
        >>> geometry = md.Geometry.flat((64, 64), distance_m=0.1, pixel_size_m=75e-6)
        >>> float(geometry.radius("pixel").min().round(3))
        0.707
        """
        sizes = pixel_size_m if isinstance(pixel_size_m, tuple) else (pixel_size_m, pixel_size_m)
        center = beam_center or (shape[0] / 2, shape[1] / 2)
        return cls(
            shape,
            distance_m=distance_m,
            pixel_size_m=sizes,
            beam_center=center,
            wavelength_m=wavelength_m,
            mask=mask,
        )

    @classmethod
    def from_poni(
        cls, url: str | os.PathLike[str], *, shape: Sequence[int] | None = None, mask: NDArray[Any] | None = None
    ) -> Geometry:
        """A detector as pyFAI describes it: tilts, detector masks and corrections are pyFAI's own.

        Flat detectors across the beam are known without it: those given by their pixels, and Dectris's by name.

        Parameters
        ----------
        url : str or path
            A PONI file.
        shape : sequence of int, optional
            (y, x) of the frames, where the file does not say it.
        mask : array of bool, optional
            (y, x), True = bad; taken together with the mask of the detector.

        Returns
        -------
        Geometry

        Raises
        ------
        MissingExtraError
            pyFAI is needed, and not installed.
        MrczdaskError
            The file is no PONI file, or does not say the shape of the detector.
        """
        facts, maps = read_poni(os.fspath(url), shape, mask)
        return cls(**vars(facts), maps=maps)

    @classmethod
    def from_geom(
        cls,
        url: str | os.PathLike[str],
        *,
        shape: Sequence[int] | None = None,
        frames: Any = None,
        distance_m: float | None = None,
        wavelength_m: float | None = None,
        mask: NDArray[Any] | None = None,
    ) -> Geometry:
        """A detector of several panels as CrystFEL describes it.

        A shift of the detector counts; of shifts that the file says to be in the data files, one for each frame, give
        the beam centres to `separate_background(..., beam_centers=)`.

        Parameters
        ----------
        url : str or path
            A .geom file whose panels lie in one plane (ss, fs) of the data, or in several along one axis (`dim1 = 0`,
            `dim1 = 1`, ...), which lie one below the other in the geometry.
        shape : sequence of int, optional
            (y, x) of the frames, where they have more rows or columns than the panels take.
        frames : DataArray, str, path or list of them, optional
            The frames as `open_frames` gave them, or their HDF5 files: there a distance, energy or wavelength is read
            that the .geom file says to be in the data files. Where it says nothing of them, the attributes `distance_m`
            and `wavelength_m` of the DataArray count.
        distance_m : float, optional
            From the sample to the detector, in place of that of the file; `coffset` is added.
        wavelength_m : float, optional
            In place of that of the file.
        mask : array of bool, optional
            (y, x), True = bad; taken together with the bad regions of the file. Pixels of no panel are bad.

        Returns
        -------
        Geometry

        Raises
        ------
        MrcFormatError
            The file is no geometry, its panels are in data of several places, or do not fit the frames; a unit is not
            one that CrystFEL has: m and mm for lengths, m and A for wavelengths, eV, keV and MeV for energies, V and kV
            for voltages; or a place is not in the data files.
        FileNotFoundError

        Notes
        -----
        As in CrystFEL, a length without unit is in metres, but `clen` from the data files in millimetres, an energy in
        eV; a wavelength or voltage must have a unit. Of values that differ between frames the median is taken, and
        warned of above 0.1 %.

        References
        ----------
        White et al., "CrystFEL: a software suite for snapshot serial crystallography", J. Appl. Cryst. 45 (2012).
        """
        facts, maps = read_panels(os.fspath(url), distance_m, wavelength_m, mask, shape, frames)
        return cls(**vars(facts), maps=maps)

    def framed(self, shape: Sequence[int]) -> Geometry:
        """The same detector for frames of a shape (y, x).

        Frames may have rows and columns of no panel at their end where `from_geom` made it: those are bad. Any other
        detector is unchanged.
        """
        if tuple(shape) == self.shape or not isinstance(self.maps, PanelMaps):
            return self
        facts, maps = self.maps.framed(shape, self.mask)
        values = {name: getattr(self, name) for name in _VALUES}
        return Geometry(**(vars(facts) | values), maps=maps)

    def moved(self, beam_center: tuple[float, float]) -> Geometry:
        """The same detector with the beam at another place, (y, x) in pixels: the beam of a microscope wanders.

        Only a detector that is flat and perpendicular to the beam has it; of `from_geom`, with the pixels of its panels
        on one grid, fast along x and slow along y.
        """
        if not self.maps.is_flat:
            raise MrczdaskError(f"{self!r} is no flat detector across the beam: only there can the beam be moved")
        return Geometry(
            self.shape,
            distance_m=self.distance_m,
            pixel_size_m=self.pixel_size_m,
            beam_center=beam_center,
            wavelength_m=self.wavelength_m,
            mask=self.mask,
            **{name: getattr(self, name) for name in _VALUES},
        )

    def radius(self, unit: Unit = "q_A^-1") -> NDArray[np.float64]:
        """Radius of the centre of every pixel.

        Parameters
        ----------
        unit : {"q_A^-1", "q_nm^-1", "2th_deg", "2th_rad", "r_m", "r_mm", "pixel"}
            Of the radius; q needs the wavelength.

        Returns
        -------
        numpy.ndarray of float64
            (y, x), in that unit.

        Raises
        ------
        MrczdaskError
            q is asked for, and the wavelength is not known.
        ValueError
            The unit is not known.

        Notes
        -----
        With the angle 2theta to the beam, q = 4 pi sin(theta) / wavelength.

        Examples
        --------
        >>> import mrczdask as md
        >>> geometry = md.Geometry.flat((4, 4), distance_m=0.1, pixel_size_m=0.001)
        >>> float(geometry.radius("r_mm").max().round(3)), float(geometry.radius("r_m").max().round(6))
        (2.121, 0.002121)
        """
        return self.maps.radius(unit) * SCALES.get(unit, 1.0)

    def binned_radius(self, unit: Unit) -> NDArray[np.float64]:
        """The radius in the unit in which pixels are binned.

        1/nm for both q, radians for both 2theta, metres for both r, or pixels.
        """
        return self.maps.radius(unit)

    def flat_radius(self, y: NDArray[np.float64], x: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
        """As `binned_radius`, (y, x) so far from the beam on a flat detector across it, in metres, or pixels."""
        return self._flat.radius_at(y, x, unit)

    def azimuth(self) -> NDArray[np.float64]:
        """Angle of the centre of every pixel about the beam, chi = atan2(y, x) from the beam in metres.

        Returns
        -------
        numpy.ndarray of float64
            (y, x) in radians, from -pi on and less than pi: 0 along x, pi/2 along y. Of bad pixels: any finite angle.

        References
        ----------
        Ashiotis et al., "The fast azimuthal integration Python library: pyFAI", J. Appl. Cryst. 48 (2015): its chi.

        Examples
        --------
        >>> import mrczdask as md
        >>> md.Geometry.flat((2, 2)).azimuth().round(3).tolist()
        [[-2.356, -0.785], [2.356, 0.785]]
        """
        return self.maps.azimuth()

    def positions(self, y: Sequence[float], x: Sequence[float]) -> NDArray[np.float64]:
        """Where places in pixels are in space.

        Parameters
        ----------
        y, x : sequence of float
            (n), in pixels of the frame, 0 being the centre of the first one.

        Returns
        -------
        numpy.ndarray of float64
            (3, n) z, y and x in metres from the sample. Of several panels, on the one whose pixels hold the place;
            between panels and off the frame, on the plane of the panel that is nearest in the frame: a peak whose
            centre lies a little off its panel stands where the panel would go on.

        Notes
        -----
        On a flat detector across the beam (z, (y + 0.5 - y_0) p_y, (x + 0.5 - x_0) p_x) with the beam at (y_0, x_0) and
        pixels p; on a panel of a .geom file (corner + (x - min_fs + 0.5) fs + (y - min_ss + 0.5) ss) / res, with clen
        and coffset along z, and the shift of the detector.

        References
        ----------
        White et al., "CrystFEL: a software suite for snapshot serial crystallography", J. Appl. Cryst. 45 (2012).

        Examples
        --------
        >>> import mrczdask as md
        >>> md.Geometry.flat((4, 6), distance_m=0.1, pixel_size_m=0.001).positions([0, 1.5], [0, 2.5]).tolist()
        [[0.1, 0.1], [-0.0015, 0.0], [-0.0025, 0.0]]
        """
        return self.maps.positions(y, x)

    def correction(self, polarization: float | None = None, solid_angle: bool = True) -> NDArray[np.float64]:
        """Solid angle of every pixel against one on the beam times its polarization, (y, x), where they are asked for.

        `polarization` is 1 for a beam polarized along x, 0 for none.
        """
        return self.maps.correction(polarization, solid_angle)

    def facts(self) -> dict[str, Any]:
        """What is known of the detector, by the names of the attributes of frames: it counts before what frames say.

        A detector that was given without the side of a pixel (1 m) tells the beam centre alone.
        """
        center = [float(value) for value in self.beam_center]
        if self.pixel_size_m == _NO_SIZE:
            return {"beam_center": center}
        sizes = [float(value) for value in self.pixel_size_m]
        found = {"distance_m": float(self.distance_m), "pixel_size_m": sizes, "beam_center": center}
        return found if self.wavelength_m is None else found | {"wavelength_m": float(self.wavelength_m)}

    def __dask_tokenize__(self) -> tuple[str, ...]:
        facts: tuple[Any, ...] = (self.shape, self.distance_m, self.pixel_size_m, self.beam_center, self.wavelength_m)
        facts += (self.source, self.validity, self.marks, self.counts_per_photon)
        return type(self.maps).__name__, repr(facts), hashlib.sha256(np.packbits(self.mask).tobytes()).hexdigest()

    def __repr__(self) -> str:
        y, x = self.beam_center
        lam = "" if self.wavelength_m is None else f", {1e10 * self.wavelength_m:.4f} A"
        return f"<Geometry {self.shape}, {1e3 * self.distance_m:.1f} mm, beam at ({y:.1f}, {x:.1f}) pixels{lam}>"
