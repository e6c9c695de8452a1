"""Arrays to arrays: numba kernels that release the GIL and know nothing of files, units, dask or xarray."""
