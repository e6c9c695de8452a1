"""The background of diffraction frames: average and deviation over radial bins, with and without clipping."""

from __future__ import annotations

from typing import Any

import xarray as xr
from numpy.typing import ArrayLike

from mrczdask.diffraction.checks import number
from mrczdask.diffraction.clipping import Clipping, ErrorModel, binned, prepare
from mrczdask.diffraction.counts import GAIN, without_rule
from mrczdask.io.geometry import Geometry, Unit
from mrczdask.io.sparse_table import RESPONSE
from mrczdask.provenance import record


def separate_background(
    frames: Any,
    geometry: Geometry,
    *,
    bins: int = 800,
    unit: Unit = "q_A^-1",
    error_model: ErrorModel = "poisson",
    cutoff_clip: float = 0.0,
    cycle: int = 5,
    noise: float = 1.0,
    mask: ArrayLike | None = None,
    dark: ArrayLike | None = None,
    flat: ArrayLike | None = None,
    dummy: float | None = None,
    delta_dummy: float | None = None,
    polarization: float | None = None,
    solid_angle: bool = False,
    radial_range: tuple[float, float] | None = None,
    sectors: int = 1,
    beam_centers: ArrayLike | None = None,
) -> xr.Dataset:
    """Separate the background of diffraction frames from their Bragg signal: sigma clipping over radial bins.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        (shot, y, x), or (y, x), or with scan dims in front, which become `shot`. Integers or floats, in counts.
    geometry : Geometry
        Of the detector; its mask always counts.
    bins : int
        Radial bins of equal width between the smallest and the largest radius that is not masked.
    unit : str
        Of the radius: "q_A^-1", "q_nm^-1", "2th_deg", "2th_rad", "r_m", "r_mm" or "pixel".
    error_model : {"poisson", "azimuthal", "hybrid", "count"}
        Deviation of a pixel: from its counts; from the spread of its bin; or the latter to clip, the former at the end.
        "count", for counting detectors, clips by the quantiles of Poisson's distribution, and is right at any count;
        the others are not below about 1 count a pixel.
    cutoff_clip : float
        Pixels further than this from the average of their bin, in deviations, are dropped. Chauvenet's criterion is a
        floor: 0 takes it alone.
    cycle : int
        Most passes of clipping; 0 averages without.
    noise : float
        Deviation of the detector, in counts: kept for `sparsify`.
    mask : array of bool, optional
        (y, x), True = bad; taken together with that of the geometry and the coordinate `mask` of the frames.
    dark : array, optional
        (y, x), in counts; subtracted from every frame.
    flat : array, optional
        (y, x), response of a pixel.
    dummy : float, optional
        Value of invalid pixels in the frames. By default their attribute `dummy`, or what pyFAI knows of the detector
        by its name in a PONI file; dummy=nan stands for none. Besides, only numbers from the attribute
        `underload_value` to `saturation_value` count, that no flag of a .geom file names; NaN, infinity and the two
        highest numbers of 32-bit integers never do.
    delta_dummy : float, optional
        Values this close to `dummy` are invalid too, by default the attribute `delta_dummy` where `dummy` is one.
    polarization : float, optional
        Polarization factor of the beam, -1 to 1, to correct for.
    solid_angle : bool
        Correct for the solid angle of a pixel.
    radial_range : (float, float), optional
        Only pixels of rmin <= radius < rmax, in `unit`, are picked by `sparsify`.
    sectors : int
        Equal sectors around the beam, from -180 degrees on, each with bins of its own: for a background that depends on
        the azimuth too, such as that of a jet, a fibre or a polarized beam. `sparsify`, `find_peaks` and `densify`
        interpolate between their centres. 8 to 16 do, with fewer `bins` and error_model="count": the clipping of the
        published models lowers the average of bins of few pixels (by 2 to 4 % at 30 pixels of some counts).
    beam_centers : array, optional
        (shot, 2) float, (y, x) of the beam in each frame, in pixels from the outer edge of the first, or with scan dims
        in front: bins are then about the beam of each shot. For flat detectors across the beam: `Geometry.flat`, PONI
        files without tilt, and .geom files whose panels are one grid.

    Returns
    -------
    Dataset
        Lazy. `background_avg`, `background_std` (shot, radius) float32, of one pixel after normalisation, NaN where a
        bin has no valid pixel; `n_used` (shot, radius) int32, the pixels left, 0 too where the limits leave none of
        fewer than 16 pixels, whose average is then that of the nearest to their median; coordinates `radius` and
        `pixel_radius` (y, x) in `unit` (NaN = masked), `normalization` (y, x) and `dark` (y, x) where they matter. With
        `sectors` the bins are (shot, sector, radius), with coordinates `sector`, the azimuth of the centres, and
        `pixel_azimuth` (y, x), in degrees from x towards y. With `beam_centers` also `beam_center_y`, `beam_center_x`
        (shot), which `sparsify`, `find_peaks` and `densify` follow; bins then span the radii of all shots, and the maps
        (y, x) are those of the geometry's own beam centre.

    Raises
    ------
    MrczdaskError
        Frames, geometry or a map differ in shape, every pixel is masked, or the geometry is not one whose beam moves.
    ValueError
        An option is not known, or a negative number is given for `cycle`, `cutoff_clip` or `noise`.

    Notes
    -----
    With b = (raw - dark) / w and w the product of flat, solid angle and polarization: mean = sum(b w) / sum(w),
    std = sqrt(sum(v) / sum(w^2)) with v = max(1, raw) for Poisson and v = w^2 (b - mean)^2 for azimuthal. A pixel is
    dropped where \\|b - mean\\| > z std with z = max(cutoff_clip, sqrt(2 ln(n / sqrt(2 pi)))), n the pixels of the bin
    that are valid and left, whether others are masked, hold the dummy or are not finite.

    A hot pixel of 60000 counts moves that start so far that the limits may drop the background itself. A bin begins
    anew with the 80 % of its pixels nearest to the median, and judges all again, where none is left, where the mean
    lies more than a deviation from that of most pixels, or where pixels were lost to one 80 deviations above them:
    up to 5 % of wild pixels in a ring leave its average as it is. All other bins have the published numbers.

    "count" drops a pixel where a Poisson count of the mean expected there, w mean + dark, would lie as far out with a
    probability below that of a normal number above z: of pure background it drops at most 2 / z pixels a bin, at any
    count. The mean is corrected for what the limits cut off, std = sqrt(sum(w mean + dark) / sum(w^2)), and bins of
    fewer than 10 pixels are not clipped. A negative count is an outlier to it.

    No frame is read before the result is computed. A mask that came with the frames is, once: which radii the bins
    span depends on it.

    References
    ----------
    Kieffer, Orlans, Coquelle, Debionne, Basu, Homs, Santoni, De Sanctis, "Application of signal separation to
    diffraction image compression and serial crystallography", J. Appl. Cryst. 58 (2025), equations 2 to 6.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10, 12] = 900
    >>> geometry = md.Geometry.flat((64, 64))
    >>> background = md.separate_background(frames, geometry, bins=16, unit="pixel").compute()
    >>> bool((background.background_avg == 3).all())
    True
    """
    images, clipping, centers = prepare(
        frames,
        geometry,
        error_model,
        cutoff_clip,
        cycle,
        dummy,
        delta_dummy,
        beam_centers,
        bins=bins,
        dark=dark,
        unit=unit,
        mask=mask,
        flat=flat,
        polarization=polarization,
        solid_angle=solid_angle,
        radial_range=radial_range,
        sectors=sectors,
    )
    table, coords, about = binned(images, clipping, centers)
    settings = {"error_model": error_model, "cutoff_clip": cutoff_clip, "cycle": cycle, "noise": noise, "unit": unit}
    corrected = {"polarization": polarization, "solid_angle": solid_angle or None}
    settings |= {name: value for name, value in corrected.items() if value is not None}
    attrs = _attrs(images, geometry, clipping, settings, radial_range)
    values = {
        "background_avg": table["average"],
        "background_std": table["deviation"],
        "n_used": table["count"],
    }
    return xr.Dataset(values, coords, attrs | about)


def azimuthal_average(
    frames: Any,
    geometry: Geometry,
    *,
    bins: int = 800,
    unit: Unit = "q_A^-1",
    error_model: ErrorModel = "poisson",
    mask: ArrayLike | None = None,
    dark: ArrayLike | None = None,
    flat: ArrayLike | None = None,
    dummy: float | None = None,
    delta_dummy: float | None = None,
    polarization: float | None = None,
    solid_angle: bool = False,
    sectors: int = 1,
    beam_centers: ArrayLike | None = None,
) -> xr.Dataset:
    """Average diffraction frames over radial bins: azimuthal integration, nothing clipped.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        As in `separate_background`.
    geometry : Geometry
        Of the detector.
    bins : int
        Radial bins of equal width.
    unit : str
        Of the radius, as in `separate_background`.
    error_model : {"poisson", "azimuthal", "hybrid", "count"}
        As in `separate_background`; hybrid is Poisson here.
    mask : array of bool, optional
        (y, x), True = bad, as in `separate_background`.
    dark : array, optional
        (y, x), in counts.
    flat : array, optional
        (y, x), response of a pixel.
    dummy : float, optional
        Value of invalid pixels, as in `separate_background`.
    delta_dummy : float, optional
        Values this close to `dummy` are invalid too.
    polarization : float, optional
        Polarization factor of the beam, -1 to 1.
    solid_angle : bool
        Correct for the solid angle of a pixel.
    sectors : int
        Equal sectors around the beam, from -180 degrees on: two-dimensional integration ("caking").
    beam_centers : array, optional
        (shot, 2) float, (y, x) of the beam in each frame, as in `separate_background`.

    Returns
    -------
    Dataset
        Lazy. `intensity` and `std` (shot, radius) float32, average and deviation of one pixel, `n_used` (shot, radius)
        int32; NaN where a bin has no pixel. With `sectors` they are (shot, sector, radius).

    Raises
    ------
    MrczdaskError
        Frames, geometry or a map differ in shape, or every pixel is masked.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025), equations 2 to 6.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> geometry = md.Geometry.flat((32, 32))
    >>> averages = md.azimuthal_average(np.ones((1, 32, 32)), geometry, bins=8, unit="pixel")
    >>> averages.intensity.values.tolist()
    [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """
    images, clipping, centers = prepare(
        frames,
        geometry,
        error_model,
        0.0,
        0,
        dummy,
        delta_dummy,
        beam_centers,
        bins=bins,
        dark=dark,
        unit=unit,
        mask=mask,
        flat=flat,
        polarization=polarization,
        solid_angle=solid_angle,
        sectors=sectors,
    )
    table, coords, _ = binned(images, clipping, centers)
    values = {
        "intensity": table["average"],
        "std": table["deviation"],
        "n_used": table["count"],
    }
    known = {name: coord for name, coord in coords.items() if name not in ("normalization", "dark", RESPONSE)}
    return xr.Dataset(
        values, known, record(images.attrs | geometry.facts(), "azimuthal_average", {"bins": bins, "unit": unit})
    )


def _attrs(
    images: xr.DataArray,
    geometry: Geometry,
    clipping: Clipping,
    settings: dict[str, Any],
    radial_range: tuple[float, float] | None,
) -> dict[str, Any]:
    """What `sparsify` needs to know of the frames, the detector and of how they were averaged, and the record of it."""
    number("noise", settings["noise"])
    settings = settings | clipping.counts.attrs() | {"frame_dtype": images.dtype.str}
    settings |= {GAIN: clipping.gain} if clipping.gain != 1 else {}
    if radial_range is not None:
        settings["radial_range"] = list(radial_range)
    return record(without_rule(images.attrs) | geometry.facts() | settings, "separate_background", settings)
