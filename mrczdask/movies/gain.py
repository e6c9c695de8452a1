"""A-priori gain: dark reference, gain reference, and the defects the gain names."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.kernels import normalise
from mrczdask.kernels.orientation import oriented
from mrczdask.kernels.usable import mended
from mrczdask.movies.arrays import (
    Movie,
    as_session,
    blockwise,
    check_size,
    labelled,
    of_movies,
    on_images,
    one_chunk,
    placed,
    result_dtype,
)
from mrczdask.movies.camera_turn import check_turn
from mrczdask.movies.gamma import flattest_exponent
from mrczdask.movies.gamma import gamma as gamma_of_rate
from mrczdask.movies.orientation import CONVENTIONS, explain_size, rescaled
from mrczdask.movies.sums import sum_frames
from mrczdask.provenance import record

MASK: Final = "mask"
"""Coordinate of the images that names defects of the gain."""


def apply_gain(
    images: Movie,
    gain: xr.DataArray | NDArray[Any] | None,
    *,
    dark: xr.DataArray | NDArray[Any] | None = None,
    dose_rate: ArrayLike | xr.DataArray | None = None,
    gamma: ArrayLike | xr.DataArray | None = None,
    orientation: str | xr.Dataset | None = None,
    convention: str | None = None,
) -> Movie:
    """Subtract the dark reference and apply the gain reference to movies or to their sums; nothing is computed.

    Parameters
    ----------
    images : DataArray, Dataset or array
        Movies (..., frame, y, x), or sums (..., y, x) with the coordinate `n_frames`.
    gain : DataArray or array, optional
        (y, x), or (movie, y, x) matched by label. Pixels that are not above 0, no numbers or beyond 2**53 are defects:
        they are replaced by the mean of good neighbours and named in the coordinate `mask` of the result. None: only
        the dark is subtracted.
    dark : DataArray or array, optional
        Dark counts of one frame, (y, x) or (movie, y, x). Sums lose it `n_frames` times. Pixels that are NaN, infinite
        or beyond 2**53 are defects too.
    dose_rate : float, array or DataArray, optional
        Electrons per pixel and second, one for all or one a movie, such as ``session.dose_rate``: the gain is raised
        to ``gamma(dose_rate)``.
    gamma : float, array or DataArray, optional
        The exponent itself. Default: 1.
    orientation : str or Dataset, optional
        How the gain is to be turned: "as stored", "rot90", "rot180", "rot270", "flip y", "flip y, rot90", ...; or
        the answer of `orient_gain`, which also gives convention and scale.
    convention : {"multiply", "divide"}, optional
        Whether the gain is a factor or a divisor. Default: its attribute `convention`, else "multiply".

    Returns
    -------
    DataArray, Dataset or array
        What was given; float32, or float64 for sums.

    Raises
    ------
    ValueError
        A reference has another size, lacks a movie or has another `origin` than the images, the images were turned by
        the camera software (`rotation_flip`) and the gain does not say that it lies as they do, or both `dose_rate`
        and `gamma` are given.

    Notes
    -----
    I = (raw - dark) gain**gamma, with a gain that is a factor. It commutes with the sum over frames.

    References
    ----------
    McLeod et al., MRCZ, eqs. 8 and 9.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie, truth = md.simulate.movie((4, 64, 64), dose=20, gain=md.simulate.Gain(pixel_sd=0.05))
    >>> corrected = md.apply_gain(movie, truth.gain)
    >>> corrected.dtype, corrected.attrs["history"].splitlines()[-1].split("(")[0].split()[-1]
    (dtype('float32'), 'apply_gain')
    >>> bool(corrected.sum("frame").std() < movie.sum("frame").std())
    True
    """
    exponent = _exponent(dose_rate, gamma)

    def verb(given: xr.DataArray) -> xr.DataArray:
        factor, defects = (None, None) if gain is None else gain_factor(gain, given, exponent, orientation, convention)
        shadow, lost = (None, None) if dark is None else _dark(dark, given)
        dtype = result_dtype(given.dtype)
        parts = [None if p is None else (p.data, p.dims) for p in (factor, shadow)]
        out = given.copy(data=blockwise(_correct, given, *parts, dtype=dtype, dims=given.dims, to=dtype))
        called = {
            "gain": factor,
            "dark": shadow,
            "gamma": None if exponent is None else np.asarray(exponent).tolist(),
            "orientation": _answer(orientation),
        }
        out.attrs = record(given.attrs, "apply_gain", called)
        for bad in (defects, lost):
            out = out if bad is None else _with_mask(out, bad)
        return out

    return on_images(images, verb)


def _answer(orientation: str | xr.Dataset | None) -> str | None:
    return str(orientation.attrs["orientation"]) if isinstance(orientation, xr.Dataset) else orientation


def _exponent(dose_rate: Any, exponent: Any) -> Any:
    if dose_rate is None:
        return exponent
    if exponent is not None:
        raise ValueError("apply_gain: give dose_rate or gamma, not both")
    found = gamma_of_rate(np.asarray(getattr(dose_rate, "values", dose_rate), float))
    return dose_rate.copy(data=found) if isinstance(dose_rate, xr.DataArray) else found


def gain_factor(
    gain: Any, images: xr.DataArray, exponent: Any, orientation: str | xr.Dataset | None, convention: str | None
) -> tuple[xr.DataArray, xr.DataArray | None]:
    """The factor of every pixel, (y, x) or (movie, y, x), and the defects of the gain where it may have any."""
    gain = of_movies(labelled(gain, name="gain"), images, "gain")
    turned, scale = _answer(orientation), 1
    if isinstance(orientation, xr.Dataset):
        if not orientation.attrs["decided"]:
            raise ValueError(f"apply_gain: the orientation is {orientation.attrs['verdict']}")
        convention, scale = convention or orientation.attrs[schema.CONVENTION], int(orientation.attrs["scale"])
    convention = convention or gain.attrs.get(schema.CONVENTION) or CONVENTIONS[0]
    if convention not in CONVENTIONS:
        raise ValueError(f'the convention of the gain is {convention!r}: give "multiply" or "divide"')
    check_turn(gain, images, turned)
    _check_origin(gain, images, turned)
    prepare = partial(_prepared, scale=scale, convention=convention, orientation=turned)
    size = images.sizes[schema.Y], images.sizes[schema.X]
    factor, bad = _on_reference(prepare, gain, size)
    return _raised(xr.DataArray(factor, dims=gain.dims), exponent, images), (
        None if bad is None else xr.DataArray(bad, dims=gain.dims)
    )


def _on_reference(prepare: Any, gain: xr.DataArray, size: tuple[int, int]) -> tuple[Any, Any]:
    """Prepare a gain in memory at once, a lazy one in its graph; no mask where it is known to have no defects."""
    stored = gain.transpose(..., schema.Y, schema.X).data
    shape = _prepared_shape(stored.shape, prepare.keywords, size)
    if not isinstance(stored, da.Array):
        factor, bad = prepare(stored)
        return one_chunk(factor), bad if bad.any() else None
    whole = one_chunk(stored)
    chunks = (*whole.chunks[:-2], (shape[-2],), (shape[-1],))
    parts = [
        da.map_blocks(_part, whole, prepare, k, chunks=chunks, dtype=dtype, meta=np.empty((0,) * whole.ndim, dtype))
        for k, dtype in enumerate((np.float32, bool))
    ]
    return parts[0], parts[1]


def _part(gain: NDArray[Any], prepare: Any, k: int) -> NDArray[Any]:
    return np.asarray(prepare(gain)[k])


def _prepared_shape(shape: tuple[int, ...], how: dict[str, Any], size: tuple[int, int]) -> tuple[int, ...]:
    scale, turned = how["scale"], how["orientation"]
    found = tuple(n // scale if scale > 0 else n * -scale for n in shape[-2:])
    if turned is not None:
        found = oriented(np.empty((*found, 0)).transpose(2, 0, 1), turned).shape[-2:]
    if found != size:
        raise ValueError(f"apply_gain: {explain_size((shape[-2], shape[-1]), size)}")
    return found


def _prepared(
    gain: NDArray[Any], *, scale: int, convention: str, orientation: str | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The factor on the pixels of the images, and the pixels whose gain is a defect."""
    images = [normalise.usable_gain(image) for image in gain.reshape(-1, *gain.shape[-2:])]
    good, bad = (np.stack(parts).reshape(gain.shape) for parts in zip(*images, strict=True))
    factor = rescaled(good, scale, convention)
    bad = rescaled(bad.astype(np.float32), scale, "divide") > 0
    factor = np.asarray(1 / factor if convention == "divide" else factor, np.float32)
    if orientation is not None:
        factor, bad = oriented(factor, orientation), oriented(bad, orientation)
    return np.ascontiguousarray(factor), np.ascontiguousarray(bad)


def _check_origin(gain: xr.DataArray, images: xr.DataArray, orientation: str | None) -> None:
    origins = gain.attrs.get(schema.ORIGIN), images.attrs.get(schema.ORIGIN)
    if orientation is None and None not in origins and origins[0] != origins[1]:
        raise ValueError(
            f"apply_gain: row 0 of the gain is its {origins[0]} one, of the images their {origins[1]} one: say how the "
            'gain is to be turned with orientation=, such as "flip y", or ask orient_gain'
        )


def _raised(factor: xr.DataArray, exponent: Any, images: xr.DataArray) -> xr.DataArray:
    """factor**gamma; one image for each gamma that differs."""
    if exponent is None:
        return factor
    wanted = exponent if isinstance(exponent, xr.DataArray) else np.asarray(exponent, float)
    if isinstance(wanted, xr.DataArray):
        wanted = of_movies(wanted, images, "gamma")
    values = np.asarray(wanted, float)
    if not np.isfinite(values).all():
        raise ValueError(f"gamma={exponent}: give finite numbers")
    if values.ndim == 0:
        return factor if values == 1 else factor.copy(data=_power(factor.data, float(values)))
    movies = images.sizes.get(schema.MOVIE, 1) if schema.MOVIE in images.dims else 1
    if values.shape != (movies,):
        raise ValueError(f"gamma has the shape {values.shape}: give one number, or one for each of {movies} movies")
    distinct = {value: _power(factor.data, value) for value in np.unique(values).tolist()}
    if schema.MOVIE in factor.dims:
        images_of = [distinct[value][k] for k, value in enumerate(values.tolist())]
    elif len(distinct) == 1:
        return factor.copy(data=distinct[float(values[0])])
    else:
        images_of = [distinct[value] for value in values.tolist()]
    return xr.DataArray(da.stack(images_of), dims=(schema.MOVIE, schema.Y, schema.X))


def _power(factor: da.Array, exponent: float) -> da.Array:
    return da.map_blocks(np.power, factor, np.float32(exponent), dtype=np.float32, meta=factor._meta)


def _dark(dark: Any, images: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Dark counts of the images, of a frame or of all frames of a sum, and pixels of it that are no numbers, if any."""
    dark = of_movies(labelled(dark, name="dark reference"), images, "dark reference")
    check_size(dark, images, "dark reference")
    _check_origin(dark, images, None)
    data, bad = _on_dark(dark.transpose(..., schema.Y, schema.X).data)
    out = xr.DataArray(data, dims=dark.dims)
    lost = None if bad is None else xr.DataArray(bad, dims=dark.dims)
    if schema.FRAME in images.dims:
        return out, lost
    if schema.N_FRAMES not in images.coords:
        raise ValueError("apply_gain: a dark reference is per frame, and the sums lack the coordinate n_frames")
    count = np.asarray(images[schema.N_FRAMES].values)
    if (count == count.flat[0]).all():
        return out.copy(data=out.data.astype(np.float64) * float(count.flat[0])), lost
    each = xr.DataArray(count.astype(float), dims=images[schema.N_FRAMES].dims).chunk({schema.MOVIE: 1})
    return (each * out).transpose(..., schema.Y, schema.X), lost


def _on_dark(dark: Any) -> tuple[da.Array, Any]:
    """A dark reference in memory made usable at once, a lazy one in its graph; no mask of integers."""
    if not isinstance(dark, da.Array):
        values, bad = usable_darks(dark)
        return one_chunk(values), bad
    whole = one_chunk(dark)
    values = da.map_blocks(_usable_dark, whole, dtype=np.float32, meta=np.empty((0,) * dark.ndim, np.float32))
    if dark.dtype.kind != "f":
        return values, None
    return values, da.map_blocks(_lost, whole, dtype=bool, meta=np.empty((0,) * dark.ndim, bool))


def usable_darks(dark: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Dark references (..., y, x), usable everywhere, and where they were not; None for nowhere."""
    images = [normalise.usable_dark(image) for image in dark.reshape(-1, *dark.shape[-2:])]
    values = np.stack([image for image, _ in images]).reshape(dark.shape)
    if all(bad is None for _, bad in images):
        return values, None
    masks = [np.zeros(dark.shape[-2:], bool) if bad is None else bad for _, bad in images]
    return values, np.stack(masks).reshape(dark.shape)


def _usable_dark(dark: NDArray[Any]) -> NDArray[np.float32]:
    return usable_darks(dark)[0]


def _lost(dark: NDArray[Any]) -> NDArray[np.bool_]:
    bad = usable_darks(dark)[1]
    return np.zeros(dark.shape, bool) if bad is None else bad


def _correct(
    block: NDArray[Any],
    factor: NDArray[Any] | None,
    dark: NDArray[Any] | None,
    *,
    dims: tuple[Hashable, ...],
    to: np.dtype[Any],
) -> NDArray[Any]:
    out = np.empty(block.shape, to)
    frames, target = as_session(block, dims), as_session(out, dims)
    for k in range(len(frames) if block.size else 0):
        one, shadow = (None if p is None else p[min(k, len(p) - 1)] if p.ndim == 3 else p for p in (factor, dark))
        normalise.correct(frames[k], np.ones(frames.shape[-2:], np.float32) if one is None else one, shadow, target[k])
    return out


def _with_mask(images: xr.DataArray, defects: xr.DataArray) -> xr.DataArray:
    """The images with the defects of the gain in the coordinate `mask`."""
    known = images.coords.get(MASK)
    if schema.MOVIE in defects.dims and schema.MOVIE in images.coords:
        defects = defects.assign_coords({schema.MOVIE: images[schema.MOVIE].variable})
    bad = defects.variable if known is None else known.variable | defects.variable
    return images.assign_coords({MASK: xr.Variable(bad.dims, bad.data, placed(images.attrs))})


def fit_gamma(
    flat: xr.DataArray | NDArray[Any],
    gain: xr.DataArray | NDArray[Any],
    *,
    size: int = 64,
    dark: xr.DataArray | NDArray[Any] | None = None,
    orientation: str | xr.Dataset | None = None,
    convention: str | None = None,
) -> float:
    """Measure the exponent of the gain reference that flattens an image without specimen best.

    Parameters
    ----------
    flat : DataArray or array
        Raw counts of an illuminated detector without specimen: a sum (y, x) or a movie (frame, y, x).
    gain : DataArray or array
        (y, x), the gain reference.
    size : int
        Side of the box of the mean filter, in pixels.
    dark : DataArray or array, optional
        As of `apply_gain`.
    orientation : str or Dataset, optional
        As of `apply_gain`.
    convention : {"multiply", "divide"}, optional
        As of `apply_gain`.

    Returns
    -------
    float
        gamma, for ``apply_gain(..., gamma=)``.

    Raises
    ------
    ValueError
        The image is empty or smaller than the box, or the gain is constant.

    Notes
    -----
    argmin over gamma of std(uniform(flat gain**gamma, size)) / mean. The box mean is taken at every eighth pixel, and
    where it lies wholly within the image.

    References
    ----------
    McLeod et al., MRCZ, eq. 10.

    Examples
    --------
    >>> import mrczdask as md
    >>> options = dict(dose=50, gain=md.simulate.Gain(smooth_sd=0.05), gamma=0.85)
    >>> flat, truth = md.simulate.movie((4, 512, 512), **options)
    >>> bool(abs(md.fit_gamma(flat, truth.gain) - 0.85) < 0.01)
    True
    """
    total = sum_frames(flat) if flat.ndim == 3 else flat
    if not isinstance(total, xr.DataArray):
        total = xr.DataArray(total, dims=(schema.Y, schema.X), coords={schema.N_FRAMES: 1})
    counts = np.asarray(mended(np.asarray(apply_gain(total, None, dark=dark)))[0], np.float32)
    factor, _ = gain_factor(gain, total, None, orientation, convention)
    return flattest_exponent(counts, np.asarray(factor, np.float32), size)
