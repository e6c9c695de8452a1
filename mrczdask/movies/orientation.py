"""Orientation and convention of a gain reference: found by correlation, undone on application."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from mrczdask import schema
from mrczdask.kernels.normalise import usable_gain
from mrczdask.kernels.orientation import ORIENTATIONS as ORIENTATIONS
from mrczdask.kernels.orientation import oriented as oriented
from mrczdask.kernels.usable import mended
from mrczdask.movies.sums import sum_frames

CONVENTIONS: Final = ("multiply", "divide")
SCALES: Final = (2, 4, 8)
HIGH_PASS: Final = 15
"""Side of the box whose mean is taken away: slow variations are those of the specimen too."""
CLIP: Final = 5.0
"""Standard deviations at which pixels are clipped: a few hot ones would decide the correlation."""
_FAR: Final = 10.0
"""Ranges of all pixels but 2 in 1000 beyond which a pixel is cut before the box mean is taken."""
DECISIVE: Final = 5.0
"""Standard deviations of a correlation by which the best hypothesis must lead."""


def scale_between(gain: tuple[int, int], images: tuple[int, int]) -> int | None:
    """How many gain pixels lie along a pixel of the images: 2 for a super-resolution gain, -2 for such images.

    None where no size fits, whatever the orientation.
    """
    for scale in (1, *SCALES):
        finer = (images[0] * scale, images[1] * scale)
        if gain in (finer, finer[::-1]):
            return scale
        finer = (gain[0] * scale, gain[1] * scale)
        if images in (finer, finer[::-1]):
            return -scale
    return None


def rescaled(gain: NDArray[Any], scale: int, convention: str) -> NDArray[Any]:
    """A gain on the pixels of the images: responses of the pixels that are binned are averaged."""
    if scale == 1:
        return gain
    if scale < 0:
        return gain.repeat(-scale, axis=-2).repeat(-scale, axis=-1)
    response = 1 / gain if convention == "multiply" else gain
    *batch, ny, nx = response.shape
    binned = response.reshape(*batch, ny // scale, scale, nx // scale, scale).mean(axis=(-3, -1))
    return np.asarray(1 / binned if convention == "multiply" else binned, np.float32)


def explain_size(gain: tuple[int, int], images: tuple[int, int]) -> str:
    """Why a gain does not fit, and what to do."""
    sizes = f"the gain is {gain[0]} x {gain[1]}, the images are {images[0]} x {images[1]} (y, x)"
    scale = scale_between(gain, images)
    remedy = "orient_gain(images, gain) tells how it fits, and apply_gain(..., orientation=) takes its answer"
    if scale is None:
        return f"{sizes}: it is of another detector or mode"
    if scale > 1:
        return f"{sizes}: it is {scale} times finer, as of super-resolution or unbinned images; {remedy}"
    if scale < -1:
        return f"{sizes}: the images are {-scale} times finer, as of super-resolution; {remedy}"
    return f"{sizes}: it is turned by a quarter; {remedy}"


def orient_gain(images: xr.DataArray | NDArray[Any], gain: xr.DataArray | NDArray[Any]) -> xr.Dataset:
    """Find how a gain reference is turned and flipped, and whether it multiplies or divides.

    Parameters
    ----------
    images : DataArray or array
        Raw counts: a sum (y, x), a movie (frame, y, x), or sums or movies of a session, which are added. The more
        electrons the better; 5 a pixel in all suffice for 1 % variation between pixels.
    gain : DataArray or array
        (y, x) as in the file.

    Returns
    -------
    xarray.Dataset
        `z` (convention, orientation): correlation of each of the 16 hypotheses, in standard deviations of none.
        Attributes `orientation`, `convention`, `scale` (2 where the gain is twice as fine as the images, -2 where the
        images are), `decided` and `verdict`, a sentence. Give it as ``apply_gain(..., orientation=)``.

    Raises
    ------
    ValueError
        The gain is of another size that is no multiple of that of the images.

    Notes
    -----
    z = r sqrt(pixels), r the Pearson correlation of the raw sum with each of the eight orientations of 1/G
    ("multiply": pixels that answer weakly have a large factor) and of G ("divide"), all less their 15 x 15 mean and
    clipped at 5 standard deviations. Where the best leads by less than 5 nothing is decided: the images are corrected
    already, or the gain is constant or of another detector.

    References
    ----------
    McLeod et al., MRCZ, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> movie, truth = md.simulate.movie((4, 256, 256), dose=5, gain=md.simulate.Gain(pixel_sd=0.03))
    >>> found = md.orient_gain(movie, np.rot90(truth.gain, -1))
    >>> found.attrs["orientation"], found.attrs["convention"], found.attrs["decided"]
    ('rot90', 'multiply', True)
    """
    total = _raw_sum(images)
    reference, bad = usable_gain(np.squeeze(np.asarray(getattr(gain, "values", gain))))
    scale = scale_between(reference.shape, total.shape)
    if scale is None:
        raise ValueError(f"orient_gain: {explain_size(reference.shape, total.shape)}")
    signal = _high_passed(total)
    z = np.full((len(CONVENTIONS), len(ORIENTATIONS)), np.nan)
    for c, convention in enumerate(CONVENTIONS):
        factor = rescaled(reference, scale, convention)
        expected = _high_passed(1 / factor if convention == "multiply" else factor)
        for o, name in enumerate(ORIENTATIONS):
            turned = oriented(expected, name)
            if turned.shape == signal.shape:
                z[c, o] = float((signal * turned).mean()) * np.sqrt(signal.size)
    return _decide(z, scale, int(bad.sum()))


def misfit(images: xr.DataArray | NDArray[Any], gain: Any, orientation: str | None, convention: str | None) -> str:
    """Say how a gain fits raw images where that is another way than the one given; "" where it fits or is not decided.

    `gain` (y, x) lies as in its file, and would be turned by `orientation`.
    """
    given = orientation or next(iter(ORIENTATIONS)), convention or CONVENTIONS[0]
    found = orient_gain(images, gain)
    right = found.attrs["orientation"], found.attrs[schema.CONVENTION]
    if not found.attrs["decided"] or right == given:
        return ""
    z = found["z"].sel(orientation=given[0], convention=given[1])
    said = getattr(images, "attrs", {}).get("rotation_flip")
    about = f"; the movies say RotationAndFlip {said}" if said else ""
    return (
        f"the images fit the gain as {found.attrs['verdict']}; as given ({', '.join(given)}) z = {float(z):.1f}{about}"
    )


def _raw_sum(images: Any) -> NDArray[np.float64]:
    summed = sum_frames(images) if _has_frames(images) else images
    extra = tuple(range(summed.ndim - 2))
    data = summed.data if isinstance(summed, xr.DataArray) else summed
    return mended(np.asarray(data.sum(axis=extra) if extra else data, np.float64))[0]


def _has_frames(images: Any) -> bool:
    if isinstance(images, xr.Dataset):
        return True
    return schema.FRAME in images.dims if isinstance(images, xr.DataArray) else images.ndim > 2


def _high_passed(image: NDArray[Any]) -> NDArray[np.float32]:
    """Standardised, without slow variations and extremes; zero where the image is constant."""
    known = np.isfinite(image)
    if not known.all():  # a pixel that is no number takes the middle: it says nothing
        image = np.where(known, image, np.median(image[known]) if known.any() else 0.0)
    # a huge one would stay in the running sums of the box along its row and column
    least, most = np.quantile(image[:: max(len(image) // 512, 1)], [0.001, 0.999])
    span = _FAR * (float(most) - float(least))
    left = np.clip(image, least - span, most + span).astype(np.float32)
    level = abs(float(left.mean()))
    left = left - uniform_filter(left, HIGH_PASS, mode="mirror")
    low, high = np.quantile(left[:: max(len(left) // 512, 1)], [0.1587, 0.8413])
    limit = CLIP * max((high - low) / 2, 1e-12)
    left = np.clip(left - np.median(left), -limit, limit)
    sd = float(left.std())
    flat = sd <= 1e-6 * max(level, 1e-30)
    return np.zeros_like(left) if flat else (left - left.mean()) / np.float32(sd)


def _decide(z: NDArray[np.float64], scale: int, defects: int) -> xr.Dataset:
    names = list(ORIENTATIONS)
    order = np.argsort(np.where(np.isnan(z), -np.inf, z), axis=None)[::-1]
    (c, o), runner_up = np.unravel_index(order[0], z.shape), float(z.flat[order[1]])
    lead = float(z[c, o]) - (runner_up if np.isfinite(runner_up) else 0.0)
    decided = bool(lead >= DECISIVE and z[c, o] >= DECISIVE)
    found = f"{names[o]}, {CONVENTIONS[c]}"
    if decided:
        verdict = f"{found}: z = {z[c, o]:.1f}, {lead:.1f} above the next"
    else:
        verdict = (
            f"undecided: the best, {found}, has z = {z[c, o]:.1f} and leads by {lead:.1f}, less than {DECISIVE:g}: the "
            "images are corrected already, or the gain is constant or of another detector; apply nothing"
        )
    attrs = {
        "orientation": names[o] if decided else "",
        schema.CONVENTION: CONVENTIONS[c] if decided else "",
        "scale": scale,
        "decided": decided,
        "verdict": verdict,
        "n_defects": defects,
    }
    coords = {schema.CONVENTION: list(CONVENTIONS), "orientation": names}
    return xr.Dataset({"z": ((schema.CONVENTION, "orientation"), z)}, coords, attrs)
