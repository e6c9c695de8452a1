"""numcodecs and Zarr v3 shells over `kernels`."""
