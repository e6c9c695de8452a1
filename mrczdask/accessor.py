"""The accessor `.em` of DataArrays: header, plot, slider, load, and what a notebook shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mrczdask import schema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mrczdask.formats.mrc import MrcHeader

Frame = int | Literal["sum", "mean"] | None


@xr.register_dataarray_accessor("em")  # type: ignore[no-untyped-call]
class EmAccessor:
    """Electron-microscopy view of a DataArray whose last dims are (y, x).

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.write_mrcz(md.simulate.poisson((4, 32, 32), mean=1.0, seed=0), "movie.mrcz")
    >>> movie.em.header.shape
    (4, 32, 32)
    """

    def __init__(self, images: xr.DataArray):
        self._images = images

    @property
    def header(self) -> MrcHeader | None:
        """The MRC header of the file the array was opened from; None for other arrays."""
        return self._images.encoding.get(schema.MRC_HEADER)

    def load(self, *, progress: Any = None) -> xr.DataArray:
        """Read the pixels into memory: as `.compute()`, without the copy it makes of the chunks of a movie.

        Parameters
        ----------
        progress : None, True or callable
            True shows a bar; a callable gets (done, total, label).

        Returns
        -------
        DataArray
            The same over a numpy array.
        """
        from mrczdask.io.load import load

        return load(self._images, progress=progress)

    def image(self, frame: Frame = None) -> xr.DataArray:
        """One image (y, x): a frame by its position, or the "sum" or "mean" of all; lazy.

        Parameters
        ----------
        frame : int, "sum" or "mean", optional
            The first frame where None. Of a session, select a movie first.

        Returns
        -------
        DataArray
            (y, x), or (y, x, band).

        Raises
        ------
        ValueError
            The array has dims besides frame, y, x and band.
        """
        images = self._images
        if frame in ("sum", "mean") and schema.FRAME in images.dims:
            from mrczdask.movies.sums import sum_frames

            total = sum_frames(images)
            assert isinstance(total, xr.DataArray)
            images = total if frame == "sum" else total / images.sizes[schema.FRAME]
        elif schema.FRAME in images.dims:
            images = images.isel({schema.FRAME: 0 if frame is None else frame})
        others = [str(dim) for dim in images.dims[:-2] if dim != schema.Y]
        if others:
            chosen = ", ".join(f"{dim}=0" for dim in others)
            raise ValueError(f"one image has the dims (y, x), not {images.dims}: select with .isel({chosen}) first")
        return images

    def plot(
        self,
        frame: Frame = None,
        *,
        ax: Axes | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        title: str | None = None,
        cmap: str = "gray",
    ) -> Axes:
        """Draw a frame or the sum with robust contrast and a scale bar. Only what is drawn is read.

        Parameters
        ----------
        frame : int, "sum" or "mean", optional
            As in `image`.
        ax : matplotlib axes, optional
            Where to draw; a new figure where None.
        percentiles : (float, float)
            Percentiles of the pixels drawn black and white.
        title : str, optional
            The name of the movie and the frame where None.
        cmap : str
            A colour map of matplotlib.

        Returns
        -------
        matplotlib axes

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from mrczdask.plotting import draw_image

        image = self.image(frame)
        pixel = image.attrs.get(schema.PIXEL_SIZE)
        return draw_image(
            image.values,
            ax=ax,
            pixel_size_angstrom=None if pixel is None else float(np.ravel(pixel)[0]),
            origin=str(image.attrs.get(schema.ORIGIN, "lower")),
            percentiles=percentiles,
            title=self._title(frame) if title is None else title,
            cmap=cmap,
        )

    def _title(self, frame: Frame) -> str:
        from mrczdask.report import name_of

        n = self._images.sizes.get(schema.FRAME)
        part = "" if n is None else f"{frame} of {n} frames" if frame in ("sum", "mean") else f"frame {frame or 0}"
        return ", ".join(piece for piece in (name_of(self._images), part) if piece)

    def slider(self, **options: Any) -> Any:
        """A lazy slider over frames and movies: each position reads one frame.

        Parameters
        ----------
        **options
            Passed to hvplot's `image`.

        Returns
        -------
        holoviews object

        Raises
        ------
        MissingExtraError
            hvplot is not installed.
        """
        try:
            import hvplot.xarray  # noqa: F401
        except ImportError:
            from mrczdask.errors import MissingExtraError

            raise MissingExtraError("the slider needs hvplot: pip install 'mrczdask[plot]'") from None
        settings = {
            "x": schema.X,
            "y": schema.Y,
            "cmap": "gray",
            "rasterize": False,
            "dynamic": True,
            "aspect": "equal",
        }
        lines = {dim: np.arange(self._images.sizes[dim]) for dim in (schema.Y, schema.X)}
        return self._images.assign_coords(lines).hvplot.image(**(settings | options))

    def _repr_html_(self) -> str:
        from mrczdask.report import movie_html

        return movie_html(self._images)

    def __repr__(self) -> str:
        from mrczdask.report import describe

        rows = describe(self._images)
        width = max(map(len, rows), default=0)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())
