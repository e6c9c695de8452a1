"""Bragg peaks of diffraction frames, as a lazy ragged table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.diffraction.checks import number, span, whole_number
from mrczdask.diffraction.clipping import go_on
from mrczdask.diffraction.counts import gain_of, judge_of
from mrczdask.diffraction.maps import ANYWHERE, PixelMaps, pixel_maps, split_rows
from mrczdask.diffraction.shots import as_shots, on_workers
from mrczdask.diffraction.sparsify import background_of
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import whole_blocks
from mrczdask.execution.resume import digest
from mrczdask.io.geometry import Geometry
from mrczdask.io.peak_table import PEAKS
from mrczdask.io.ragged import Block, Ragged
from mrczdask.io.shot_identity import identity_of
from mrczdask.io.validity import Judge
from mrczdask.kernels import peaks as kernel
from mrczdask.kernels.bright_pixels import Detector, Segments, find_bright, segments_of
from mrczdask.kernels.peak_profile import interpolate_at
from mrczdask.kernels.places import filled, levels
from mrczdask.provenance import record

Gaps = Literal["fill", "ignore", "void"]
Border = Literal["void", "keep"]
Centroid = Literal["weighted", "plain"]
GAPS: Final = {"fill": kernel.FILL, "ignore": kernel.IGNORE, "void": kernel.VOID}
WEIGHT: Final = 0.65
"""Deviation of the weights of a centroid, of half a patch: 1.3 pixels of a patch of 5, which suits spots of 0.6 to 1.2.
On simulated stills it leaves 0.16 pixel (rms) of 0.18, where counting noise allows no less than 0.13."""

ICE_D_ANGSTROM: Final = (3.900, 3.670, 3.440, 2.671, 2.249, 2.072, 1.948, 1.918, 1.883, 1.721)
"""Spacings of hexagonal ice: Thorn et al., Acta Cryst. D 73 (2017) 729, table 1 (to 1.7 A)."""
_PER_ANGSTROM: Final = {"q_A^-1": 1.0, "q_nm^-1": 10.0}


@dataclass(frozen=True)
class _Search:
    """How the frames of a graph are searched; the `detector` is that of the `maps`."""

    maps: PixelMaps
    detector: Detector
    segments: Segments
    rule: kernel.Rule
    rings: _Rings
    judge: Judge

    def at(self, center: NDArray[np.float64] | None) -> _Search:
        """The same of a frame whose beam is at a place (y, x)."""
        maps = self.maps.at(center)
        if maps is self.maps:
            return self
        detector = self.detector._replace(**self.rings.pixels(maps))
        return replace(self, maps=maps, detector=detector, segments=segments_of(detector, maps.centres.size))


@dataclass(frozen=True)
class _Rings:
    """Which pixels are searched, by their radius; `bad` (y, x) is the mask on top of that of the background. By the
    published rule, pixels out of the radial range are masked."""

    radial_range: tuple[float, float]
    exclude: tuple[tuple[float, float], ...]
    masks_range: bool
    bad: NDArray[np.bool_] | None

    def pixels(self, maps: PixelMaps) -> dict[str, Any]:
        """What a detector has of each pixel, flat."""
        low, high = self.radial_range
        searched = (maps.radius >= low) & (maps.radius < high)
        places = maps.places((low, high)) if self.masks_range else maps.places()
        for low, high in self.exclude:
            searched &= ~((maps.radius >= low) & (maps.radius < high))
        if self.bad is not None:
            places.radial[self.bad.reshape(-1)] = np.nan
        return {"places": places, "searched": searched.reshape(-1), "norm": maps.norm.reshape(-1)}


def find_peaks(
    frames: Any,
    geometry: Geometry | None = None,
    *,
    background: xr.Dataset | None = None,
    cutoff_peak: float = 3.0,
    patch_size: int = 5,
    connected: int = 3,
    max_pixels: int | None = None,
    radial_range: tuple[float, float] | None = None,
    exclude: Sequence[tuple[float, float]] = (),
    mask: ArrayLike | None = None,
    gaps: Gaps = "fill",
    border: Border = "void",
    centroid: Centroid = "weighted",
    counts_per_photon: float | None = None,
    **options: Any,
) -> Ragged:
    """Find the Bragg peaks of diffraction frames: maxima that stand out of the background of their radius.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        (shot, y, x), or (y, x), or with scan dims in front, in counts.
    geometry : Geometry, optional
        Of the detector, where no `background` is given.
    background : Dataset, optional
        What `separate_background` gave for these frames; frames are read once for both.
    cutoff_peak : float
        A peak stands out by at least so many deviations of the background and the noise.
    patch_size : int
        Side of the square around a maximum, in pixels, odd.
    connected : int
        Least pixels of the patch that stand out, the maximum counted.
    max_pixels : int, optional
        Most pixels of the patch that stand out: edges of shadows and salt have more.
    radial_range : (float, float), optional
        Maxima at rmin <= radius < rmax only, in the unit of the background.
    exclude : sequence of (float, float)
        Rings without maxima, such as `ice_rings` gives.
    mask : array of bool, optional
        (y, x), True = bad: hot pixels, such as `find_outliers` gives, on top of those of the geometry.
    gaps : {"fill", "ignore", "void"}
        Masked pixels of a patch get the value of a Gaussian through the others, which keeps centroid and sum without
        bias; or count as nothing, which is the published rule; or the patch is no peak.
    border : {"void", "keep"}
        Whether a patch over the border of the frame is no peak, the published rule, or is seen as a gap.
    centroid : {"weighted", "plain"}
        Under a Gaussian about itself, which heeds the noise of far pixels less; or of all pixels alike, the published
        rule.
    counts_per_photon : float, optional
        Gain of the detector, for the counting noise of a peak: by default what the frames or the geometry say, else 1.
    **options : dict, optional
        Of `separate_background`, where no `background` is given.

    Returns
    -------
    Ragged
        Lazy. A shot: `n_peaks` int64. A peak, float32: `y`, `x` in pixels (an integer is the centre of a pixel),
        `radius` in the unit of the background, `intensity` (sum above the background), `sigma` (of the intensity, with
        its counting noise), `sigma_background` (without: the published one), and `n_pixels` int32 above the cutoff,
        `index` uint32 (y * width + x of the maximum). `.compute()` gives the Dataset with `peak_ptr` (shot_edge).

    Raises
    ------
    MrczdaskError
        The background is not of these frames, neither it nor a geometry is given, or the patch is larger than a frame.
    ValueError
        An option is not known or out of range.

    Notes
    -----
    With d = b - background, b = (raw - dark) / w (w the normalization) and u = sqrt(std^2 + noise^2), a maximum has
    d > 0, d >= cutoff_peak u and no larger d in its patch; of equal ones the lowest index counts. Over pixels of d > 0:
    intensity = sum(d), y = sum(d y) / sum(d), sigma_background^2 = sum(u^2) and, with the gain g of the detector,
    sigma^2 = sigma_background^2 + g sum(d / w); beside a filled gap each pixel of both sums has the weight
    (1 + df / dd)^2, f being the sum of what is filled in. A weighted centroid is y = sum(e d y) / sum(e d), and x
    alike, with e a Gaussian about (y, x) of the deviation 0.65 h, h = patch_size // 2.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10:12, 12] = 900, 700
    >>> frames[1, 10, 13] = 500
    >>> peaks = md.find_peaks(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel").compute()
    >>> peaks.n_peaks.values.tolist(), f"{peaks.y.item():.2f}", f"{peaks.x.item():.2f}"
    ([0, 1], '10.32', '12.20')
    """
    images = as_shots(frames)
    _check(images, cutoff_peak, patch_size, connected, {"gaps": gaps, "border": border, "centroid": centroid})
    if background is None and mask is not None:
        options["mask"] = mask
    is_shared = background is not None
    background = background_of(images, geometry, background, options, "find_peaks")
    half = patch_size // 2
    gain = gain_of(background.attrs) if counts_per_photon is None else number("counts_per_photon", counts_per_photon)
    rule = kernel.Rule(
        cutoff=float(cutoff_peak),
        noise=float(background.attrs["noise"]),
        half=half,
        least=int(connected),
        most=patch_size**2 if max_pixels is None else whole_number("max_pixels", max_pixels, 1),
        keep_border=border == "keep",
        gaps=GAPS[gaps],
        gain=gain,
        width=WEIGHT * half if centroid == "weighted" else 0.0,
    )
    ranges = [span("radial_range", radial_range or background.attrs.get("radial_range", ANYWHERE))]
    search = _search(background, images, rule, ranges[0], exclude, mask)
    background, blocks = go_on(
        images, background, is_shared=is_shared, function=_search_chunk, search=on_workers(search)
    )
    settings = {
        "cutoff_peak": float(cutoff_peak),
        "patch_size": patch_size,
        "connected": connected,
        "max_pixels": max_pixels,
        "gaps": gaps,
        "border": border,
        "centroid": centroid,
        "counts_per_photon": gain,
        "mask": None if mask is None else digest(np.asarray(mask, bool)),
        "exclude": [list(ring) for ring in exclude] or None,
        "radial_range": None if radial_range is None else list(radial_range),
    }
    return Ragged(_header(background, images, settings), blocks, PEAKS)


def ice_rings(width: float = 0.02, *, unit: str = "q_A^-1") -> list[tuple[float, float]]:
    """Rings of hexagonal ice to leave out of a search: `find_peaks(..., exclude=ice_rings())`.

    Parameters
    ----------
    width : float
        Of each ring, in `unit`.
    unit : {"q_A^-1", "q_nm^-1"}
        That of the background.

    Returns
    -------
    list of (float, float)
        q = 2 pi / d -+ width / 2.

    Raises
    ------
    ValueError
        Another unit, or a width that is not positive.

    References
    ----------
    Thorn, Parkhurst, Emsley, Nicholls, Vollmar, Evans, Murshudov, Acta Cryst. D 73 (2017) 729.

    Examples
    --------
    >>> import mrczdask as md
    >>> [round(q, 3) for q in md.ice_rings()[0]]
    [1.601, 1.621]
    """
    if unit not in _PER_ANGSTROM:
        raise ValueError(f"unit={unit!r}: rings of ice are known in {' and '.join(_PER_ANGSTROM)}")
    if not width > 0:
        raise ValueError(f"width={width}: give more than 0")
    centres = [_PER_ANGSTROM[unit] * 2 * np.pi / d for d in ICE_D_ANGSTROM]
    return [(float(q - width / 2), float(q + width / 2)) for q in centres]


def _check(images: xr.DataArray, cutoff: float, patch: int, connected: int, choices: dict[str, str]) -> None:
    number("cutoff_peak", cutoff)
    if whole_number("patch_size", patch, 1) % 2 == 0:
        raise ValueError(f"patch_size={patch}: give an odd number")
    whole_number("connected", connected, 1, patch * patch)
    for kind, (name, value) in zip((Gaps, Border, Centroid), choices.items(), strict=True):
        if value not in get_args(kind):
            raise ValueError(f"{name}={value!r}: give one of {', '.join(get_args(kind))}")
    if patch > min(images.shape[1:]):
        raise MrczdaskError(f"a patch of {patch} x {patch} pixels is larger than a frame, {images.shape[1:]}")


def _search(
    background: xr.Dataset,
    images: xr.DataArray,
    rule: kernel.Rule,
    radial_range: tuple[float, float],
    exclude: Sequence[tuple[float, float]],
    mask: ArrayLike | None,
) -> _Search:
    """The maps of the detector."""
    judge, maps = judge_of(background.attrs, images), pixel_maps(background)
    bad = None if mask is None else np.asarray(mask, bool)
    if bad is not None and bad.shape != maps.radius.shape:
        raise MrczdaskError(f"mask has the shape {bad.shape}, the frames {maps.radius.shape}")
    low, high = radial_range
    excluded = tuple(span("exclude", ring) for ring in exclude)
    rings = _Rings((low, high), excluded, rule.gaps == kernel.IGNORE, bad)
    detector = Detector(
        width=images.shape[2],
        **rings.pixels(maps),
        dark=background["dark"].values.reshape(-1) if "dark" in background.coords else np.empty(0, np.float32),
        bounds=judge.bounds,
    )
    return _Search(maps, detector, segments_of(detector, maps.centres.size), rule, rings, judge)


def _header(background: xr.Dataset, images: xr.DataArray, settings: dict[str, Any]) -> xr.Dataset:
    """Labels of the shots, and what the peaks were found with; the background is left behind."""
    coords = {name: coord for name, coord in background.coords.items() if set(coord.dims) <= {schema.SHOT}}
    known = {name: value for name, value in settings.items() if value is not None}
    of_files, file = identity_of(images.encoding, images[schema.SHOT].values)
    about = {"shape": list(images.shape[1:]), "radius_unit": background.attrs["unit"]}
    attrs = background.attrs | known | file | about
    return xr.Dataset(coords=of_files | coords, attrs=record(attrs, "find_peaks", known))


@whole_blocks
def _search_chunk(
    frames: NDArray[Any],
    average: NDArray[Any],
    deviation: NDArray[np.float32] | None,
    centers: NDArray[np.float64] | None,
    search: _Search,
) -> Block:
    average, deviation = split_rows(average, deviation)
    counts = np.zeros(len(frames), np.int64)
    bright = np.empty(search.detector.searched.size + 1, np.uint32)
    above = np.empty(bright.size, np.float32)
    found, radii = [np.empty(0, kernel.PEAK)], [np.empty(0, np.float32)]
    for k, image in enumerate(frames):
        if not np.isfinite(average[k]).any():
            continue
        frame = np.ascontiguousarray(search.judge.plain(image)).reshape(-1)
        how = search.at(None if centers is None else centers[k])
        tables = levels(average[k]), filled(deviation[k])
        rule = how.rule
        n = find_bright(frame, how.detector, how.segments, rule.cutoff, rule.noise, *tables, bright, above)
        peaks = np.empty(n, kernel.PEAK)
        counts[k] = kernel.measure_peaks(frame, how.detector, rule, *tables, bright[:n], above[:n], peaks)
        found.append(peaks[: counts[k]].copy())
        radii.append(radius_at(how.maps.radius, found[-1]["y"], found[-1]["x"], found[-1]["index"]))
    return _as_block(counts, found, radii)


def _as_block(counts: NDArray[np.int64], found: list[NDArray[Any]], radii: list[NDArray[np.float32]]) -> Block:
    """Rows of the kernel as columns."""
    columns = {name: np.concatenate([rows[name] for rows in found]) for name in kernel.PEAK.names or ()}
    columns["radius"] = np.concatenate(radii)
    return Block(counts, {name: columns[name] for name in PEAKS.columns})


def radius_at(
    pixel_radius: NDArray[np.float32], y: NDArray[Any], x: NDArray[Any], index: NDArray[Any]
) -> NDArray[np.float32]:
    """The radius at each place, linear between pixels; beside masked ones that of the pixel of the maximum."""
    places = y.astype(np.float64), x.astype(np.float64), index.astype(np.int64)
    return interpolate_at(np.ascontiguousarray(pixel_radius), *places)
