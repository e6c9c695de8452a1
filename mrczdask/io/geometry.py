"""Where the pixels of a detector stand: radius, solid angle and polarization of each, and which are bad."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MissingExtraError, MrczdaskError
from mrczdask.formats.poni import FIRST_PIXEL_FIRST, FlatPoni, flat_poni

Unit = Literal["q_A^-1", "q_nm^-1", "2th_deg", "2th_rad", "r_m", "r_mm", "pixel"]
UNITS: Final[tuple[str, ...]] = get_args(Unit)
SCALES: Final = {"q_A^-1": 0.1, "q_nm^-1": 1.0, "2th_deg": 180 / np.pi, "2th_rad": 1.0, "r_m": 1.0, "r_mm": 1e3}
"""From the unit in which pixels are binned (nm^-1, rad, m) to the one that is shown; pixels are their own."""


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
    ):
        self.shape = (int(shape[0]), int(shape[1]))
        self.distance_m, self.pixel_size_m, self.beam_center = distance_m, pixel_size_m, beam_center
        self.wavelength_m, self.source = wavelength_m, source
        self.mask = np.zeros(self.shape, bool) if mask is None else np.asarray(mask, bool)
        if self.mask.shape != self.shape:
            raise MrczdaskError(f"the mask has the shape {self.mask.shape}, the detector {self.shape}")

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
        return _of_poni(os.fspath(url), shape, mask)

    @classmethod
    def from_geom(
        cls,
        url: str | os.PathLike[str],
        *,
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
            A .geom file whose panels lie in one plane (ss, fs) of the data.
        distance_m : float, optional
            From the sample to the detector, where the file names a place in the data files; `coffset` is added.
        wavelength_m : float, optional
            Where the file names a place in the data files.
        mask : array of bool, optional
            (y, x), True = bad; taken together with the bad regions of the file. Pixels of no panel are bad.

        Returns
        -------
        Geometry

        Raises
        ------
        MrcFormatError
            The file is no geometry, or its panels are not in one plane of the data.
        FileNotFoundError

        References
        ----------
        White et al., "CrystFEL: a software suite for snapshot serial crystallography", J. Appl. Cryst. 45 (2012).
        """
        from mrczdask.io.panel_geometry import PanelGeometry

        return PanelGeometry(os.fspath(url), distance_m, wavelength_m, mask)

    def moved(self, beam_center: tuple[float, float]) -> Geometry:
        """The same detector with the beam at another place, (y, x) in pixels: the beam of a microscope wanders.

        Only a detector that is flat and perpendicular to the beam has it; of `from_geom`, with the pixels of its panels
        on one grid, fast along x and slow along y.
        """
        if type(self) is not Geometry:
            raise MrczdaskError(f"{self!r} is no flat detector across the beam: only there can the beam be moved")
        return Geometry(
            self.shape,
            distance_m=self.distance_m,
            pixel_size_m=self.pixel_size_m,
            beam_center=beam_center,
            wavelength_m=self.wavelength_m,
            mask=self.mask,
        )

    def radius(self, unit: Unit = "q_A^-1") -> NDArray[np.float64]:
        """Radius of the centre of every pixel, (y, x) float64.

        In the unit in which pixels are binned: 1/nm for both q, radians for both 2theta, metres for both r, or pixels.
        """
        y, x = self._offsets((1.0, 1.0) if unit == "pixel" else self.pixel_size_m)
        return self.flat_radius(y, x, unit)

    def flat_radius(self, y: NDArray[np.float64], x: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
        """Radius (y, x) at such distances from the beam, on a flat detector across it: in metres, or pixels."""
        check_unit(unit)
        from mrczdask.kernels import flat_detector as kernel

        if unit.startswith("q"):
            return kernel.flat_radius(y, x, self.distance_m, kernel.SINE, self._per_sine)
        kind = kernel.ANGLE if unit.startswith("2th") else kernel.LENGTH
        return kernel.flat_radius(y, x, self.distance_m, kind, 1.0)

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
        y, x = self._offsets(self.pixel_size_m)
        return below_pi(np.arctan2(y[:, None], x))

    @property
    def _per_sine(self) -> float:
        """q in 1/nm over sin(theta)."""
        if self.wavelength_m is None:
            raise MrczdaskError("q needs the wavelength: give wavelength_m to Geometry.flat, or unit='r_m'")
        return 4e-9 * np.pi / self.wavelength_m

    def _offsets(self, sizes: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances of rows and of columns of pixels from the beam."""
        y = (np.arange(self.shape[0], dtype=np.float64) + 0.5 - self.beam_center[0]) * sizes[0]
        x = (np.arange(self.shape[1], dtype=np.float64) + 0.5 - self.beam_center[1]) * sizes[1]
        return y, x

    def positions(self, y: Sequence[float], x: Sequence[float]) -> NDArray[np.float64]:
        """(3, n) z, y and x in metres from the sample of places in pixels, 0 being the centre of the first one."""
        places = np.stack([np.asarray(y, float), np.asarray(x, float)]) + 0.5
        metres = (places.T - self.beam_center) * self.pixel_size_m
        return np.stack([np.full(len(metres), self.distance_m), *metres.T])

    def correction(self, polarization: float | None = None, solid_angle: bool = True) -> NDArray[np.float64]:
        """Solid angle of every pixel against one on the beam times its polarization, (y, x), where they are asked for.

        `polarization` is 1 for a beam polarized along x, 0 for none.
        """
        from mrczdask.kernels.flat_detector import flat_correction

        y, x = self._offsets(self.pixel_size_m)
        polarized = polarization is not None
        return flat_correction(y, x, self.distance_m, solid_angle, polarized, float(polarization or 0.0))

    def __dask_tokenize__(self) -> tuple[str, ...]:
        facts = (self.shape, self.distance_m, self.pixel_size_m, self.beam_center, self.wavelength_m, self.source)
        return type(self).__name__, repr(facts), hashlib.sha256(np.packbits(self.mask).tobytes()).hexdigest()

    def __repr__(self) -> str:
        y, x = self.beam_center
        lam = "" if self.wavelength_m is None else f", {1e10 * self.wavelength_m:.4f} A"
        return f"<Geometry {self.shape}, {1e3 * self.distance_m:.1f} mm, beam at ({y:.1f}, {x:.1f}) pixels{lam}>"


def _of_poni(url: str, shape: Sequence[int] | None, mask: NDArray[Any] | None) -> Geometry:
    """A PONI file as a flat detector if it is one: pyFAI takes seconds to load, and its maps would be the same."""
    if not os.path.isfile(url):
        raise FileNotFoundError(url)
    with open(url, encoding="utf-8", errors="replace") as file:
        text = file.read()
    found = flat_poni(text)
    integrator = None
    if found is None:
        integrator = _load_poni(url)
        found = _flat_facts(integrator)
    size = shape or found.shape
    if not size:
        raise MrczdaskError(f"{url}: the detector has no shape: give shape=(y, x)")
    size = int(size[0]), int(size[1])
    own = np.zeros(size, bool) if found.mask is None else found.mask
    if own.shape != size or found.shape not in (None, size):
        raise MrczdaskError(f"{url}: the detector has the shape {found.shape or own.shape}, the frames {size}")
    known: dict[str, Any] = {
        "distance_m": found.distance_m,
        "pixel_size_m": found.pixel_size_m,
        "beam_center": (found.poni_m[0] / found.pixel_size_m[0], found.poni_m[1] / found.pixel_size_m[1]),
        "wavelength_m": found.wavelength_m,
        "mask": own if mask is None else own | np.asarray(mask, bool),
        "source": text,
    }
    if integrator is None or _is_plain(integrator):
        return Geometry(size, **known)
    fit = integrator.getFit2D()
    known["beam_center"] = float(fit["centerY"]), float(fit["centerX"])
    return _PoniGeometry(integrator, size, **known)


def _flat_facts(integrator: Any) -> FlatPoni:
    """What pyFAI knows of a detector, but for tilts."""
    detector = integrator.detector
    return FlatPoni(
        shape=tuple(detector.shape) if detector.shape else None,
        mask=None if detector.mask is None else np.asarray(detector.mask, bool),
        distance_m=float(integrator.dist),
        pixel_size_m=(float(detector.pixel1), float(detector.pixel2)),
        poni_m=(float(integrator.poni1), float(integrator.poni2)),
        wavelength_m=integrator.wavelength,
    )


def _is_plain(integrator: Any) -> bool:
    """Whether pixels stand in even rows across the beam, the first one first, as `Geometry.flat` has them."""
    detector = integrator.detector
    untilted = integrator.rot1 == integrator.rot2 == integrator.rot3 == 0
    even = detector.uniform_pixel and detector.IS_FLAT and detector.IS_CONTIGUOUS
    first = int(detector.orientation) in FIRST_PIXEL_FIRST
    return bool(untilted and even and first and not getattr(integrator, "parallax", None))


class _PoniGeometry(Geometry):
    """Asks pyFAI for every map, so that bins are the same as its own."""

    def __init__(self, integrator: Any, shape: tuple[int, int], **known: Any):
        self._integrator = integrator
        super().__init__(shape, **known)

    def radius(self, unit: Unit = "q_A^-1") -> NDArray[np.float64]:
        check_unit(unit)
        if unit == "pixel":
            return self.radius("r_m") / self.pixel_size_m[0]
        found: NDArray[np.float64] = self._integrator.array_from_unit(self.shape, "center", unit, scale=False)
        return found

    def azimuth(self) -> NDArray[np.float64]:
        return below_pi(self._integrator.array_from_unit(self.shape, "center", "chi_rad", scale=False))

    def positions(self, y: Sequence[float], x: Sequence[float]) -> NDArray[np.float64]:
        places = (np.asarray(values, float) for values in (y, x))
        return np.stack(self._integrator.calc_pos_zyx(None, *places))

    def correction(self, polarization: float | None = None, solid_angle: bool = True) -> NDArray[np.float64]:
        known = self._integrator
        found = np.asarray(known.solidAngleArray(self.shape)) if solid_angle else np.ones(self.shape)
        return found if polarization is None else found * known.polarization(self.shape, factor=polarization)


def _load_poni(url: str) -> Any:
    try:
        import pyFAI
    except ImportError:
        raise MissingExtraError(f"{url}: PONI files need pyFAI: pip install 'mrczdask[diffraction]'") from None
    try:
        return pyFAI.load(url)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise MrczdaskError(f"{url}: this is no PONI file: {error}") from None


def check_unit(unit: str) -> None:
    """Raise unless the unit is one in which pixels are binned."""
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r}: give one of {', '.join(UNITS)}")


def below_pi(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles of [-pi, 2 pi) in [-pi, pi), in an array of their own."""
    return np.where(angle >= np.pi, angle - 2 * np.pi, angle)
