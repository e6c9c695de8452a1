"""Hot pixels that come and go, dead pixels and dead lines."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.kernels.defect_sites import SITE, alive_sites
from mrczdask.kernels.philox import uniforms
from mrczdask.simulate.checks import check_count, check_range
from mrczdask.simulate.keys import key_of

HISTORY: Final = 8
"""Mean lifetimes before a movie in which its hot pixels may be born: exp(-8) = 0.03 % of them are missed."""
_NEIGHBOURS: Final = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
CLUSTER_PIXELS: Final = 1 + len(_NEIGHBOURS) / 2
"""Mean size of a cluster: a pixel, and each of its neighbours with probability 1/2."""
HOT, DEAD = 1, 2
"""Values of `defect_kind`; 0 is a good pixel."""

Pixels = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""y, x and excess of hot pixels, in order of y, then x."""


@dataclass(frozen=True, kw_only=True)
class Defects:
    """Hot and dead pixels.

    Parameters
    ----------
    hot_fraction : float
        Share of the pixels that are hot in every movie.
    hot_births : float
        Share of the pixels that become hot from one movie to the next.
    hot_lifetime : float
        Mean number of movies for which these stay hot. Their number is then stationary, births x lifetime of the
        pixels. Infinity: they stay, the first are born in movie 0, and their number grows from movie to movie.
    hot_excess : (float, float)
        Range of what a hot pixel adds, in electrons per frame; its logarithm is uniform. Equal limits: one strength.
    hot_clusters : float
        Share of the hot places that are clusters: a pixel and each of its eight neighbours with probability 1/2.
    dead_fraction : float
        Share of the pixels that never count.
    dead_columns, dead_rows : int
        Number of whole lines that never count.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Notes
    -----
    What a hot pixel adds is Poisson, independent of the electrons that arrive: a movie without its hot counts is the
    same movie simulated clean. A pixel both hot and dead is dead. Strengths stay the same for the life of a defect.

    References
    ----------
    McLeod et al., MRCZ, section 4 (0.5 % of the pixels of a K2 are outliers, mostly hot) and 4.1 (Fig. 7: their
    number grows over a session after annealing, and is stationary in a mature state).

    Examples
    --------
    >>> import mrczdask as md
    >>> bad = md.simulate.Defects(hot_fraction=0.004, hot_births=0.0002, hot_lifetime=5, dead_columns=1)
    >>> _, truth = md.simulate.session(4, (2, 128, 128), dose=2, defects=bad)
    >>> hot = truth.hot_excess.compute() > 0
    >>> born = hot.isel(movie=slice(1, None)) & ~hot.shift(movie=1, fill_value=False).isel(movie=slice(1, None))
    >>> int(born.isel(movie=0).sum()) in range(1, 12)
    True
    """

    hot_fraction: float = 0.0
    hot_births: float = 0.0
    hot_lifetime: float = 10.0
    hot_excess: tuple[float, float] = (1.0, 8.0)
    hot_clusters: float = 0.0
    dead_fraction: float = 0.0
    dead_columns: int = 0
    dead_rows: int = 0

    def __post_init__(self) -> None:
        shares = {name: value for name, value in asdict(self).items() if name.endswith(("fraction", "births"))}
        check_range("Defects", shares, 0, 0.5)
        check_range("Defects", {"hot_clusters": self.hot_clusters}, 0, 1)
        if self.hot_lifetime != math.inf:
            check_range("Defects", {"hot_lifetime": self.hot_lifetime}, 1)
            check_range("Defects", {"hot_births * hot_lifetime": self.hot_births * self.hot_lifetime}, 0, 0.5)
        low, high = self.hot_excess
        object.__setattr__(self, "hot_excess", (low, high))
        check_range("Defects", {"hot_excess[0]": low, "hot_excess[1]": high}, 1e-6)
        if low > high:
            raise ValueError(f"Defects: hot_excess={self.hot_excess}: give the smaller limit first")
        check_count("Defects", {"dead_columns": self.dead_columns, "dead_rows": self.dead_rows})

    @property
    def has_hot(self) -> bool:
        """Whether any pixel may be hot."""
        return self.hot_fraction > 0 or self.hot_births > 0

    @property
    def has_dead(self) -> bool:
        """Whether any pixel may be dead."""
        return bool(self.dead_fraction or self.dead_columns or self.dead_rows)

    def dead(self, seed: int, size: tuple[int, int], rows: range, cols: range) -> NDArray[np.bool_]:
        """(len(rows), len(cols)), True where a pixel never counts."""
        out = np.zeros((len(rows), len(cols)), bool)
        ny, nx = size
        key = np.uint64(key_of(seed, "", "dead pixels"))
        sites = alive_sites(key, 0, 0, self.dead_fraction * ny * nx, 1.0, ny, nx).astype(np.int64)
        inside = _inside(sites[:, 0], sites[:, 1], rows, cols)
        out[sites[inside, 0] - rows.start, sites[inside, 1] - cols.start] = True
        out[:, _chosen(self.dead_columns, nx, key_of(seed, "", "dead columns"))[cols.start : cols.stop]] = True
        out[_chosen(self.dead_rows, ny, key_of(seed, "", "dead rows"))[rows.start : rows.stop]] = True
        return out

    def hot(self, seed: int, movie: int, size: tuple[int, int], rows: range, cols: range) -> Pixels:
        """The hot pixels of a movie that are within a rectangle and not dead."""
        y, x, excess = _hot_pixels(self, seed, movie, size)
        inside = _inside(y, x, rows, cols)
        y, x, excess = y[inside], x[inside], excess[inside]
        if self.has_dead and len(y):
            alive = ~self.dead(seed, size, rows, cols)[y - rows.start, x - cols.start]
            y, x, excess = y[alive], x[alive], excess[alive]
        return y, x, excess


@lru_cache(maxsize=8)
def _hot_pixels(defects: Defects, seed: int, movie: int, size: tuple[int, int]) -> Pixels:
    """All hot pixels of a movie, each once; kept for the other chunks of the movie."""
    ny, nx = size
    places = ny * nx / (1 + defects.hot_clusters * (CLUSTER_PIXELS - 1))
    lasting = np.uint64(key_of(seed, "", "lasting hot pixels"))
    passing = np.uint64(key_of(seed, "", "passing hot pixels"))
    ever, life = math.isinf(defects.hot_lifetime), defects.hot_lifetime
    first = 0 if ever else movie - math.ceil(HISTORY * life)
    sites = np.concatenate(
        [
            alive_sites(lasting, 0, 0, defects.hot_fraction * places, 1.0, ny, nx),
            alive_sites(passing, movie, first, defects.hot_births * places, 1.0 if ever else 1 - 1 / life, ny, nx),
        ]
    )
    return _pixels(sites, defects, size)


def _pixels(sites: NDArray[np.float64], defects: Defects, size: tuple[int, int]) -> Pixels:
    """Sites to pixels: clusters grown, what lies outside left out, the strongest kept where several meet."""
    ny, nx = size
    low, high = defects.hot_excess
    assert sites.shape[1] == SITE
    y, x, bits = (sites[:, column].astype(np.int64) for column in (0, 1, 4))
    excess = low * (high / low) ** sites[:, 2]
    grown = [(y, x, excess)]
    for bit, (dy, dx) in enumerate(_NEIGHBOURS):
        part = (sites[:, 3] < defects.hot_clusters) & (bits >> bit & 1 == 1)
        grown.append((y[part] + dy, x[part] + dx, excess[part]))
    y, x, excess = (np.concatenate(parts) for parts in zip(*grown, strict=True))
    inside = _inside(y, x, range(ny), range(nx))
    flat, strength = (y * nx + x)[inside], excess[inside]
    order = np.lexsort((strength, flat))
    flat, strength = flat[order], strength[order]
    last = np.append(flat[1:] != flat[:-1], [True] * (len(flat) > 0))
    return flat[last] // nx, flat[last] % nx, strength[last]


def _inside(y: NDArray[np.int64], x: NDArray[np.int64], rows: range, cols: range) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (y >= rows.start) & (y < rows.stop) & (x >= cols.start) & (x < cols.stop)
    return found


def _chosen(count: int, length: int, key: int) -> NDArray[np.bool_]:
    """Exactly `count` places of a line, at random; all of them if it is shorter."""
    out = np.zeros(length, bool)
    out[np.argsort(uniforms(length, 0, 0, np.uint64(key))[:, 0])[:count]] = True
    return out
