"""The accessor `.em`: header, plot, slider, load, and what a notebook shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mrczdask import schema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mrczdask.report.facts import Facts

Frame = int | Literal["sum", "mean"] | None


@xr.register_dataset_accessor("em")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("em")  # type: ignore[no-untyped-call]
class EmAccessor:
    """Electron-microscopy view of images (..., y, x), or of the variable `images` of a Dataset.

    At the end of a notebook's cell ``movie.em`` shows the header, the dose, the chunks and how well each frame
    compresses; no pixel is read for it.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.write_mrcz(md.simulate.poisson((4, 32, 32), mean=1.0, seed=0), "movie.mrcz")
    >>> movie.em.header["shape"]
    (4, 32, 32)
    >>> movie.em.plot("sum").figure.savefig("sum.png")
    """

    def __init__(self, images: xr.DataArray | xr.Dataset):
        self._given = images

    @property
    def _images(self) -> xr.DataArray:
        if isinstance(self._given, xr.DataArray):
            return self._given
        if schema.IMAGES not in self._given:
            names = ", ".join(map(str, self._given.data_vars))
            raise ValueError(f'the Dataset has no variable "images": use .em of one of its own ({names})')
        return self._given[schema.IMAGES]

    @property
    def header(self) -> Facts:
        """The MRC header the array was opened with, as a mapping that shows as a table; else the optics of its attrs.

        Values are as the file states them; those the package uses are the attributes of the array.
        """
        from mrczdask.report.facts import header_facts

        return header_facts(self._images)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file held as JSON, as Python objects: the attribute `metadata` is its text, as netCDF wants it."""
        from mrczdask.io.plain_attrs import metadata_of

        return metadata_of(self._images.attrs)

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
        """One image: a frame by its position, or the "sum" or "mean" of all; lazy.

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
            The array has dims besides frame, y, x and band, or no frames, or `frame` is none of the above.
        IndexError
            There is no such frame.
        """
        images, dims = self._images, self._images.dims
        if frame in ("sum", "mean") and schema.FRAME in dims:
            from mrczdask.movies.sums import sum_frames

            total = sum_frames(images)
            assert isinstance(total, xr.DataArray)
            # not by `/`: arithmetic drops attributes in some versions of xarray
            return _one_image(total if frame == "sum" else total.copy(data=total.data / images.sizes[schema.FRAME]))
        if schema.FRAME not in dims:
            if frame is not None:
                raise ValueError(f"frame={frame!r}: the array has no dim 'frame', only {dims}")
            return _one_image(images)
        return _one_image(images.isel({schema.FRAME: _position(frame, images.sizes[schema.FRAME])}))

    def plot(
        self,
        frame: Frame = None,
        *,
        ax: Axes | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        title: str | None = None,
        cmap: str = "gray",
        colorbar: str | None = None,
    ) -> Axes:
        """Draw a frame or the sum with robust contrast, and a scale bar where the pixel size is known.

        Only what is drawn is read. Images of more than 1024 pixels a side are averaged over blocks, masks are black
        and white (white: bad), and of complex pixels the modulus is drawn.

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
        colorbar : str, optional
            Label of a colour bar, as "counts"; none is drawn where None.

        Returns
        -------
        matplotlib axes

        Raises
        ------
        ValueError, IndexError
            As in `image`; or an option is none of those above.
        MissingExtraError
            matplotlib is not installed.
        """
        from mrczdask.plotting import draw_image, only_counts

        image = self.image(frame)
        return draw_image(
            only_counts(image),
            ax=ax,
            pixel_size_angstrom=image.attrs.get(schema.PIXEL_SIZE),
            origin=str(image.attrs.get(schema.ORIGIN, "lower")),
            percentiles=percentiles,
            title=self._title(frame, image) if title is None else title,
            cmap=cmap,
            colorbar=colorbar,
        )

    def _title(self, frame: Frame, image: xr.DataArray) -> str:
        from mrczdask.report.facts import name_of

        number = image.coords.get(schema.FRAME)
        n = self._images.sizes.get(schema.FRAME)
        if frame in ("sum", "mean"):
            part = f"{frame} of {n} frames"
        elif number is not None and number.ndim == 0:
            part = f"frame {number.item()}"
        else:
            part = "" if n is None else f"frame {_position(frame, n)}"
        return ", ".join(piece for piece in (name_of(image), part) if piece)

    def slider(self, *, percentiles: tuple[float, float] = (0.5, 99.5), **options: Any) -> Any:
        """A lazy slider over frames and movies: each position reads one frame, and has the contrast of its own.

        Parameters
        ----------
        percentiles : (float, float)
            Percentiles of the pixels drawn black and white.
        **options
            Options of a HoloViews image, as `frame_width=700` or `cmap="viridis"`.

        Returns
        -------
        holoviews.DynamicMap

        Raises
        ------
        ValueError
            The array has no dim before y and x.
        MissingExtraError
            hvplot is not installed.

        Notes
        -----
        HoloViews loads Bokeh from the internet; ``holoviews.extension("bokeh", inline=True)`` in the notebook takes it
        from the machine instead.
        """
        from mrczdask.plotting import frame_slider

        return frame_slider(self._images, percentiles=percentiles, **options)

    def _repr_html_(self) -> str:
        from mrczdask.report.notebook import movie_html

        return movie_html(self._images)

    def __repr__(self) -> str:
        from mrczdask.report.facts import describe

        return repr(describe(self._images))


def _position(frame: Any, n_frames: int) -> int:
    """Position of a frame, counted from the end where negative; None is the first."""
    if frame is None:
        return 0
    if isinstance(frame, bool) or not isinstance(frame, int | np.integer):
        raise ValueError(f'frame={frame!r}: give the position of a frame, "sum" or "mean"')
    if not -n_frames <= frame < n_frames:
        raise IndexError(f"frame={frame}: the movie has {n_frames} frames")
    return int(frame) % n_frames


def _one_image(images: xr.DataArray) -> xr.DataArray:
    """The same, if it has no dims before those of an image."""
    from mrczdask.plotting import stacked_dims

    if others := stacked_dims(images):
        chosen = ", ".join(f"{dim}=0" for dim in others)
        raise ValueError(f"one image has the dims (y, x), not {images.dims}: select with .isel({chosen}) first")
    return images
