"""Decimation: the integer counts behind a gain-normalised movie, and the floats back, bit for bit."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.execution.blocks import whole_blocks
from mrczdask.kernels.decimation import FORMULAS, count_frame, counts_of, find_scale, normalised, whole_counts
from mrczdask.kernels.normalise import usable_gain
from mrczdask.kernels.orientation import ORIENTATIONS, oriented
from mrczdask.kernels.usable import unusable
from mrczdask.movies.arrays import blockwise, on_images, one_chunk, whole_images
from mrczdask.movies.gain import MASK
from mrczdask.provenance import record

SAMPLE: Final = 1 << 18
"""Pixels of a frame on which hypotheses are tried."""
ENOUGH: Final = 1 << 14
MOST_FRAMES: Final = 16
"""Frames are taken until this many pixels hold electrons: ways to multiply differ in the last bit of a few."""
FORMULA: Final = "gain_formula"
SCALE: Final = "gain_scale"
ORIENTATION: Final = "gain_orientation"
"""Attributes of the counts from which the floats follow."""


def recover_integers(movie: xr.DataArray | xr.Dataset, gain: xr.DataArray | NDArray[Any]) -> xr.Dataset:
    """Give back the integer counts of a movie that was multiplied by its gain reference.

    Parameters
    ----------
    movie : DataArray or Dataset
        (frame, y, x) or (movie, frame, y, x) of floats: counts times gain, at most multiplied by one more number.
    gain : DataArray or array
        (y, x), the gain reference as in its file: its orientation, and whether it multiplied or divided, are found.

    Returns
    -------
    xarray.Dataset
        `images`: lazy counts (uint8, int16 or uint16) for `write_mrcz`; `n_not_integer` and `n_inexact` (frame), lazy
        numbers of the pixels that are no count, and that are one but do not give the float back to the last bit (those
        of -0.0 are other than of 0.0). They are 0 where the decimation is proven; defects of the gain, in the
        coordinate `mask`, do not count. Attributes of `images`: `gain_orientation`, `gain_formula`, `gain_scale`.

    Raises
    ------
    ValueError
        The movie holds integers, the gain has another size, or under no orientation the movie is a whole number of
        counts times the gain.

    Notes
    -----
    Orientation and scale are found on the first frames: for each of the eight orientations the ratios of movie and gain
    lie on a lattice, or do not; its spacing is the scale. Of four ways to multiply in float32 the one is taken that
    gives most floats back bit for bit. Each pixel is then proven by computing its float again.

    References
    ----------
    McLeod et al., MRCZ, section 1: integers with the gain reference beside them take a quarter of the bytes before
    compression.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> raw, truth = md.simulate.movie((3, 64, 64), dose=2, gain=md.simulate.Gain(pixel_sd=0.05))
    >>> floats = md.apply_gain(raw, truth.gain)
    >>> counts = md.recover_integers(floats, np.rot90(truth.gain)).compute()
    >>> bool((counts.images == raw).all()), int(counts.n_inexact.sum()), counts.images.dtype
    (True, 0, dtype('uint8'))
    """
    images = movie[schema.IMAGES] if isinstance(movie, xr.Dataset) else movie
    if images.dtype.kind != "f" or schema.FRAME not in images.dims:
        raise ValueError(f"recover_integers: the movie is {images.dtype} {images.dims}: give floats with the dim frame")
    reference, bad = usable_gain(np.squeeze(np.asarray(gain)))
    values = _first_frames(images.transpose(..., schema.FRAME, schema.Y, schema.X))
    orientation, formula, scale = _explain(values, reference, bad)
    factor, defects = (np.ascontiguousarray(oriented(image, orientation)) for image in (reference, bad))
    attrs = {ORIENTATION: orientation, FORMULA: formula, SCALE: scale}
    dtype = _count_dtype(counts_of(values, factor, scale, formula)[:, ~defects])
    whole = whole_images(images if isinstance(images.data, da.Array) else images.chunk())
    options = {"dtype": dtype, **{name.removeprefix("gain_"): attrs[name] for name in (FORMULA, SCALE)}}
    return _dataset(whole, factor, defects, attrs, options)


def _first_frames(images: xr.DataArray) -> NDArray[Any]:
    """(n, y, x): frames of the first movie, until enough of their pixels hold electrons."""
    movie = images.isel(dict.fromkeys(images.dims[:-3], 0))
    taken: list[NDArray[Any]] = []
    for k in range(min(movie.sizes[schema.FRAME], MOST_FRAMES)):
        taken.append(np.asarray(movie[k]))
        if sum(np.count_nonzero(frame) for frame in taken) >= ENOUGH:
            break
    values = np.stack(taken)
    odd = unusable(values)  # they are no counts, and told as such by n_not_integer
    return values if odd is None else np.where(odd, values.dtype.type(0), values)


def _explain(values: NDArray[Any], gain: NDArray[np.float32], bad: NDArray[np.bool_]) -> tuple[str, str, float]:
    """The orientation, formula and scale by which a frame is a whole number of counts."""
    size = values.shape[1:]
    if sorted(size) != sorted(gain.shape):
        raise ValueError(f"recover_integers: the gain is {gain.shape}, the images are {size} (y, x)")
    rows = slice(0, max(SAMPLE // size[1], 1))
    best: tuple[float, str, str, float] | None = None
    for orientation in ORIENTATIONS:
        factor, defects = oriented(gain, orientation), oriented(bad, orientation)
        if factor.shape != size:
            continue
        kept = ~defects[rows]
        part, own = values[:, rows][:, kept], np.ascontiguousarray(factor[rows][kept])
        for formulas in (FORMULAS[:2], FORMULAS[2:]):
            scale = find_scale(counts_of(part, own, 1.0, formulas[0]).ravel())
            for formula in formulas if scale is not None else ():
                assert scale is not None
                found = _tidy(part, own, scale, formula)
                if best is None or found > best[:1] + best[3:]:
                    best = (found[0], orientation, formula, found[1])
    if best is None:
        raise ValueError(
            "recover_integers: under no orientation of the gain the movie is a whole number of counts times the gain: "
            "it is another gain, or the movie was processed further (outliers filled, aligned, rounded)"
        )
    return best[1:]


def _tidy(values: NDArray[Any], gain: NDArray[np.float32], scale: float, formula: str) -> tuple[float, float]:
    """Share of floats given back to the last bit, and the scale: the fitted one or a round number near it."""
    candidates = {float(np.float32(scale)), *(float(f"{scale:.{digits}g}") for digits in range(1, 6))}
    dtype = np.dtype(np.int32)
    shares = [(float(whole_counts(values, gain, s, formula, dtype)[2].mean()), s) for s in candidates if s > 0]
    return max(shares)


def _count_dtype(counts: NDArray[np.float64]) -> np.dtype[Any]:
    """The smallest dtype with room for twice the largest count of the first frame."""
    low, high = (float(v) for v in (counts.min(), counts.max())) if counts.size else (0.0, 0.0)
    if low < -0.5:
        return np.dtype(np.int16)
    return np.dtype(np.uint8 if 2 * high <= np.iinfo(np.uint8).max else np.uint16)


def _dataset(
    images: xr.DataArray, factor: NDArray[np.float32], bad: NDArray[np.bool_], attrs: dict[str, Any], options: Any
) -> xr.Dataset:
    parameters = [(one_chunk(array), (schema.Y, schema.X)) for array in (factor, bad)]
    count: Any = partial(_count, **options)  # gives no array, but two of them
    both = blockwise(count, images, *parameters, dtype=object)
    counts = blockwise(partial(_part, number=0), images.copy(data=both), dtype=options["dtype"])
    lead = images.dims[:-2]
    faults = da.blockwise(
        partial(_part, number=1),
        (*lead, "kind"),
        both,
        images.dims,
        new_axes={"kind": 2},
        dtype=np.int64,
        meta=np.empty((0,) * (len(lead) + 1), np.int64),
    )
    out = images.copy(data=counts).assign_coords({MASK: ((schema.Y, schema.X), bad)} if bad.any() else {})
    out.attrs = record({**images.attrs, **attrs}, "recover_integers", attrs)
    found = out.to_dataset(name=schema.IMAGES)
    return found.assign(n_not_integer=(lead, faults[..., 0]), n_inexact=(lead, faults[..., 1]))


def _count(
    block: NDArray[Any], gain: NDArray[np.float32], bad: NDArray[np.bool_], *, scale: float, formula: str, dtype: Any
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Counts of frames, and their faults (..., 2): one task gives both, whether one of them is asked for or both."""
    counts = np.empty(block.shape, dtype)
    faults = np.empty((*block.shape[:-2], 2), np.int64)
    for k in np.ndindex(block.shape[:-2]):
        faults[k] = count_frame(block[k], gain, bad, scale, formula, counts[k])
    return counts, faults


@whole_blocks
def _part(both: tuple[Any, Any], *, number: int) -> Any:
    return both[number]


def restore_floats(counts: xr.DataArray, gain: xr.DataArray | NDArray[Any]) -> xr.DataArray:
    """Give the gain-normalised floats of recovered counts, computed when they are read.

    Parameters
    ----------
    counts : DataArray
        What `recover_integers` gave, or that written to and read from a file that keeps attributes.
    gain : DataArray or array
        (y, x), the gain reference it was called with.

    Returns
    -------
    DataArray
        float32, lazy: bit for bit the movie from which the counts were recovered, where these were proven.

    Raises
    ------
    ValueError
        The counts lack the attributes of `recover_integers`, or the gain has another size.

    Examples
    --------
    >>> import mrczdask as md
    >>> raw, truth = md.simulate.movie((3, 64, 64), dose=2, gain=md.simulate.Gain(pixel_sd=0.05))
    >>> floats = md.apply_gain(raw, truth.gain)
    >>> counts = md.recover_integers(floats, truth.gain)
    >>> bool((md.restore_floats(counts.images, truth.gain) == floats).all())
    True
    """
    missing = [name for name in (ORIENTATION, FORMULA, SCALE) if name not in counts.attrs]
    if missing:
        raise ValueError(f"restore_floats: the counts lack the attribute {missing[0]} that recover_integers gives them")
    reference, _ = usable_gain(np.squeeze(np.asarray(gain)))
    factor = np.ascontiguousarray(oriented(reference, str(counts.attrs[ORIENTATION])))
    if factor.shape != (counts.sizes[schema.Y], counts.sizes[schema.X]):
        raise ValueError(f"restore_floats: the gain is {reference.shape}, the counts are {counts.shape[-2:]} (y, x)")
    scale, formula = float(counts.attrs[SCALE]), str(counts.attrs[FORMULA])

    def verb(given: xr.DataArray) -> xr.DataArray:
        image = (one_chunk(factor), (schema.Y, schema.X))
        block = partial(_floats, scale=scale, formula=formula)
        kept = {name: value for name, value in given.attrs.items() if name not in (ORIENTATION, FORMULA, SCALE)}
        out = given.copy(data=blockwise(block, given, image, dtype=np.float32))
        out.attrs = record(kept, "restore_floats")
        return out

    return on_images(counts, verb)


def _floats(block: NDArray[Any], gain: NDArray[np.float32], *, scale: float, formula: str) -> NDArray[np.float32]:
    return normalised(block, gain, scale, formula)
