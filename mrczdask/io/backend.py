"""The xarray engine `mrcz`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from mrczdask.formats.mrc_fields import SUFFIXES
from mrczdask.io.source import unwrapped_name


class MrczBackend(BackendEntrypoint):
    """`xr.open_dataset(url, engine="mrcz")`: the reader of `open_movie`."""

    description = "Electron-microscopy movies: MRC, MRCZ, TIFF and EER"
    open_dataset_parameters = (
        "filename_or_obj",
        "mask_and_scale",
        "decode_times",
        "drop_variables",
        "signed",
        "truncated",
        "upsampling",
        "frames_per_fraction",
        "storage_options",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: bool | None = None,
        decode_times: bool | None = None,
        drop_variables: str | Iterable[str] | None = None,
        signed: bool | None = None,
        truncated: str = "error",
        upsampling: int = 1,
        frames_per_fraction: int = 1,
        storage_options: dict[str, Any] | None = None,
    ) -> xr.Dataset:
        """Open a movie as a Dataset with the variable `images`; there is nothing in it to scale or to decode."""
        from mrczdask.io.movie import movie_dataset

        ds = movie_dataset(
            os.fspath(filename_or_obj),
            signed=signed,
            truncated=truncated,
            upsampling=upsampling,
            frames_per_fraction=frames_per_fraction,
            storage_options=storage_options,
        )
        return ds.drop_vars(drop_variables, errors="ignore") if drop_variables else ds

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """Open a movie as a tree of its one group."""
        return xr.DataTree.from_dict({"/": self.open_dataset(filename_or_obj, **options)})

    def open_groups_as_dict(self, filename_or_obj: Any, **options: Any) -> dict[str, xr.Dataset]:
        """Open a movie as the Dataset of its one group."""
        return {"/": self.open_dataset(filename_or_obj, **options)}

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell by the suffix; `.tif` is left to others unless this engine is named."""
        try:
            name = unwrapped_name(os.fspath(filename_or_obj))
        except TypeError:
            return False
        return name.lower().endswith(SUFFIXES)
