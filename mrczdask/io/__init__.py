"""Files and stores to lazy xarray objects and back. Only this layer opens files."""
