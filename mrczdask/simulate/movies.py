"""Movies and sessions of a simulated detector, with the truth about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mrczdask import schema
from mrczdask.provenance import record
from mrczdask.simulate import render
from mrczdask.simulate.checks import check_fits, check_range, checked_dtype, checked_shape
from mrczdask.simulate.defects import Defects
from mrczdask.simulate.frames import Chunks, make_grid, movie_names
from mrczdask.simulate.gain import Gain
from mrczdask.simulate.pattern import Pattern
from mrczdask.simulate.readout import Readout
from mrczdask.simulate.scene import Scene, make_scene
from mrczdask.simulate.specimen import Specimen
from mrczdask.simulate.truth import make_truth

START: Final = np.datetime64("2024-01-01T00:00:00", "ns")
PAUSE_S: Final = 30.0
"""Start of the first movie, and the time between the end of a movie and the start of the next."""

PerMovie = float | Sequence[float]
Gamma = PerMovie | Callable[[float], float]


class SimulatedSession(NamedTuple):
    """What `session` returns.

    Parameters
    ----------
    session : xarray.Dataset
        `images` (movie, frame, y, x), lazy.
    truth : xarray.Dataset
        What is known about them, lazy.

    Examples
    --------
    >>> import mrczdask as md
    >>> made = md.simulate.session(3, (4, 32, 32), dose=2)
    >>> made.session.sizes["movie"]
    3
    """

    session: xr.Dataset
    truth: xr.Dataset


class SimulatedMovie(NamedTuple):
    """What `movie` returns.

    Parameters
    ----------
    movie : xarray.DataArray
        `images` (frame, y, x), lazy.
    truth : xarray.Dataset
        What is known about them, lazy.

    Examples
    --------
    >>> import mrczdask as md
    >>> made = md.simulate.movie((4, 32, 32), dose=2)
    >>> made.movie.dims
    ('frame', 'y', 'x')
    """

    movie: xr.DataArray
    truth: xr.Dataset


def session(
    movies: int | Sequence[str],
    shape: Sequence[int],
    *,
    dose: PerMovie = 1.0,
    dose_rate: PerMovie = 4.0,
    gain: Gain | None = None,
    gamma: Gamma = 1.0,
    pattern: Pattern | None = None,
    defects: Defects | None = None,
    specimen: Specimen | None = None,
    drift: float | ArrayLike = 0.0,
    coincidence_time: float = 0.0,
    readout: Readout | None = None,
    pixel_size_angstrom: float = 1.0,
    voltage_kv: float = 300.0,
    dtype: DTypeLike = "uint8",
    seed: int = 0,
    detector_seed: int | None = None,
    chunks: Chunks = "auto",
) -> SimulatedSession:
    """Simulate movies taken one after the other with one detector, and tell the truth about them; nothing is computed.

    Parameters
    ----------
    movies : int or sequence of str
        Number of movies (movie_0000, movie_0001, ...) or their names, in order of acquisition.
    shape : sequence of int
        (frame, y, x) of each.
    dose : float or sequence of float
        Electrons per pixel and frame where there is no specimen; one for all movies or one each.
    dose_rate : float or sequence of float
        Electrons per pixel and second. The time of a frame is dose / dose_rate.
    gain : Gain, optional
        Response of the pixels.
    gamma : float, sequence of float or callable
        The response of a movie is response**gamma; a callable gives gamma for a dose rate.
    pattern : Pattern, optional
        What the electronics add.
    defects : Defects, optional
        Hot and dead pixels.
    specimen : Specimen, optional
        None: vacuum.
    drift : float or array
        Standard deviation of the step of the specimen from frame to frame, in pixels along each axis (a random walk
        from 0 in the first frame); or the positions themselves, (frame, 2) or (movie, frame, 2), y and x in pixels.
    coincidence_time : float
        Time in seconds for which an electron hides others in its pixel: area of an event in pixels / internal frame
        rate, 9 / 400 Hz = 0.0225 for instance. 0: no loss.
    readout : Readout, optional
        An integrating detector. None: a counting one, whose counts are Poisson.
    pixel_size_angstrom, voltage_kv : float
        Attributes; the pixel size also scales the coordinate `dose`.
    dtype : dtype
        uint8, int8, uint16, int16 or float32. Integers are clipped to their range.
    seed : int
        Another seed gives other electrons and specimens.
    detector_seed : int, optional
        Another one gives another detector: gain, pattern and defects. Default: `seed`. The gain of one detector can so
        be measured in one session and used in another.
    chunks : "auto", mapping, int or tuple
        Dask chunks of (movie, frame, y, x); the pixels do not depend on them. "auto": one movie, whole frames, at most
        128 MB a chunk when counted at 4 bytes a pixel.

    Returns
    -------
    SimulatedSession
        A pair (session, truth) of Datasets over Dask.

        session : `images` (movie, frame, y, x) with the coordinates of the data model (`movie`, `acquired`,
        `dose_rate`, `n_frames`; `frame`, `time`, `dose`).

        truth : `response` and `gain` (y, x) float32, reciprocal, at gamma = 1, attribute `convention` "divide" and
        "multiply"; `pattern` (movie, y, x) float32, electrons per frame; `hot_excess` (movie, y, x) float32, electrons
        per frame, 0 where not hot; `mask` (movie, y, x) bool; `defect_kind` (movie, y, x) uint8, 0 good, 1 hot, 2
        dead; `specimen` (movie, y, x) float32, transmission before it moves; `drift_y`, `drift_x` (movie, frame)
        pixels; `gamma`, `carbon` (movie); `expected` (movie, frame, y, x) float32, mean of each raw pixel; `clean`
        (movie, frame, y, x), the same movies without defects: equal to `images` outside of the mask, and without the
        counts that hot pixels added within it.

    Raises
    ------
    ValueError
        A parameter is out of its range or does not fit the shape, or the dose is above what the dtype holds.

    Notes
    -----
    A counting detector draws Poisson counts of the mean

        max(dose loss(dose_rate transmission) transmission response**gamma + pattern, 0),

    loss(d) = (1 - exp(-coincidence_time d)) / (coincidence_time d), none in dead pixels, and in hot pixels adds
    independent Poisson counts of their excess. Each pixel is a function of (seed, name of its movie, frame, y, x), so
    neither chunks nor a selection change it. Gain and lasting defects are functions of detector_seed; the pattern and
    passing defects also of the dose and of the number of movies before.

    References
    ----------
    McLeod et al., MRCZ, sections 4 and 5 (eqs. 9, 11, 12); Li et al., Journal of Structural Biology 184 (2013)
    251-260, for coincidence loss.

    Examples
    --------
    >>> import mrczdask as md
    >>> session, truth = md.simulate.session(
    ...     61,
    ...     (20, 256, 256),
    ...     dose=2.0,
    ...     pattern=md.simulate.Pattern(pixel_sd=0.1),
    ...     defects=md.simulate.Defects(hot_fraction=0.005),
    ... )
    >>> dict(session.images.sizes)
    {'movie': 61, 'frame': 20, 'y': 256, 'x': 256}
    >>> one = session.images.isel(movie=7)
    >>> good = ~truth.mask.isel(movie=7)
    >>> f"{float(one.where(good).mean()):.2f} {float((~good).mean()):.4f}"
    '2.00 0.0050'
    >>> bool((one == truth.clean.isel(movie=7)).where(good, True).all())
    True
    """
    options = {name: value for name, value in locals().items() if name in _DEFAULTS}
    images, truth = _simulate(_names(movies), shape, schema.SESSION_DIMS, **options)
    return SimulatedSession(images.to_dataset(name=schema.IMAGES), truth)


_DEFAULTS: Final[dict[str, Any]] = dict(session.__kwdefaults__ or {})
"""Options of `session`, which `movie` shares."""


def movie(shape: Sequence[int], *, name: str = "movie_0000", **options: Any) -> SimulatedMovie:
    """Simulate one movie, and tell the truth about it; nothing is computed.

    Parameters
    ----------
    shape : sequence of int
        (frame, y, x).
    name : str
        Its name: movies of other names have other electrons and specimens.
    **options
        As of `session`; `chunks` are those of (frame, y, x).

    Returns
    -------
    SimulatedMovie
        A pair (movie, truth): the DataArray `images` (frame, y, x), and the Dataset that `session` describes, without
        the dim `movie`.

    Raises
    ------
    ValueError
        A parameter is out of its range or does not fit the shape, or the dose is above what the dtype holds.
    TypeError
        An option is unknown.

    Notes
    -----
    The pixels are those of the first movie of a session that has this name.

    Examples
    --------
    >>> import mrczdask as md
    >>> flat, truth = md.simulate.movie((20, 128, 128), dose=60, gain=md.simulate.Gain(column_sd=0.03, row_sd=0.02))
    >>> flat.dims, truth.gain.dims
    (('frame', 'y', 'x'), ('y', 'x'))
    >>> corrected = flat.sum("frame") * truth.gain
    >>> bool(corrected.std() / corrected.mean() < 1.1 / (20 * 60) ** 0.5)
    True
    """
    unknown = set(options) - set(_DEFAULTS)
    if unknown:
        raise TypeError(f"movie() has no option {', '.join(sorted(unknown))}: see simulate.session")
    return SimulatedMovie(*_simulate((name,), shape, schema.MOVIE_DIMS, **{**_DEFAULTS, **options}))


def _simulate(
    names: tuple[str, ...],
    shape: Sequence[int],
    dims: Sequence[str],
    *,
    dtype: DTypeLike,
    chunks: Chunks,
    pixel_size_angstrom: float,
    voltage_kv: float,
    **parameters: Any,
) -> tuple[xr.DataArray, xr.Dataset]:
    sizes = checked_shape(shape, {3: "(frame, y, x)"})
    kind = checked_dtype(dtype)
    check_range("simulate", {"pixel_size_angstrom": pixel_size_angstrom, "voltage_kv": voltage_kv}, 1e-6)
    scene = make_scene(names, sizes, **parameters)
    check_fits("dose", max(scene.dose) * (scene.readout.counts_per_electron if scene.readout else 1), kind)
    grid = make_grid(sizes if len(dims) == 3 else (len(names), *sizes), names, chunks)
    grid = replace(grid, coords={**grid.coords, **_coords(scene, pixel_size_angstrom, dims)})
    attrs = {
        schema.PIXEL_SIZE: float(pixel_size_angstrom),
        schema.VOLTAGE: float(voltage_kv),
        schema.COUNTS_PER_ELECTRON: scene.readout.counts_per_electron if scene.readout else 1.0,
        schema.ORIGIN: "lower",
    }
    images = grid.array(render.Raw(scene), dims, kind, schema.IMAGES, record(attrs, "simulate", parameters))
    return images, make_truth(scene, grid, kind, attrs)


def _names(movies: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(movies, int | np.integer):
        names = tuple(movie_names(int(movies)))
    else:
        names = (movies,) if isinstance(movies, str) else tuple(map(str, movies))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"movies={movies!r}: give their number, 1 or more, or their names, each once")
    return names


def _coords(scene: Scene, pixel_size: float, dims: Sequence[str]) -> dict[str, xr.Variable]:
    """Coordinates along movie and frame; those of the frames along both where movies differ."""
    dose, rate = np.array(scene.dose), np.array(scene.dose_rate)
    seconds = dose / rate
    step = np.arange(scene.n_frames)
    before = np.concatenate([[0.0], np.cumsum(scene.n_frames * seconds + PAUSE_S)[:-1]])
    per_movie = {
        schema.ACQUIRED: START + (before * 1e9).astype("timedelta64[ns]"),
        schema.DOSE_RATE: rate,
        schema.N_FRAMES: np.full(len(rate), scene.n_frames),
    }
    per_frame = {
        schema.TIME: seconds[:, None] * step,  # of its begin
        schema.DOSE: dose[:, None] * (step + 1) / pixel_size**2,  # at its end
    }
    along = {name: _variable(name, (schema.MOVIE,), values, dims) for name, values in per_movie.items()}
    for name, values in per_frame.items():
        alike = bool((values == values[0]).all())
        along[name] = (
            _variable(name, (schema.FRAME,), values[0], dims)
            if alike
            else _variable(name, (schema.MOVIE, schema.FRAME), values, dims)
        )
    return along


def _variable(name: str, axes: tuple[str, ...], values: NDArray[Any], dims: Sequence[str]) -> xr.Variable:
    """A coordinate with its unit; of a movie without its axis `movie`."""
    attrs = {"units": schema.UNITS[name]} if name in schema.UNITS else {}
    variable = xr.Variable(axes, values, attrs)
    return variable if schema.MOVIE in dims or schema.MOVIE not in axes else variable.isel({schema.MOVIE: 0})
