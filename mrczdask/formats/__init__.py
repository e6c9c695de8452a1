"""Bytes to headers and indexes. Nothing here opens a file or knows of dask, xarray or zarr."""
