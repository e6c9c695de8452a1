"""HDF5 files of the original B3D filter: not readable here, and said so with what their parameters tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mrczdask.errors import CodecError

ORIGINAL_B3D_FILTER: Final = 32016
"""The filter's number in the register of The HDF Group."""
_PARAMETERS: Final = 6


def original_b3d_error(values: Sequence[int], dataset: str) -> CodecError:
    """Return the error to raise for a dataset that the original B3D filter has written.

    Parameters
    ----------
    values : sequence of int
        Parameters of the filter: q x 1000, mode, counts per electron x 1000, offset, read noise x 1000, tile.
    dataset : str
        The dataset's name.

    Returns
    -------
    CodecError
        It names the dataset, the filter and its parameters; not raised yet.

    Notes
    -----
    The filter's stream is defined by its source alone; no public description of it is known.

    Examples
    --------
    >>> from mrczdask.codecs import original_b3d_error
    >>> print(original_b3d_error([1000, 1, 2100, 100, 1600, 24], "images"))  # doctest: +ELLIPSIS
    images: written by the original B3D filter (32016; mode 1, q = 1, 2.1 counts per electron, ...
    """
    how = "parameters unknown"
    if len(values) >= _PARAMETERS:
        q, mode, gain, offset, noise, tile = values[:_PARAMETERS]
        how = f"mode {mode}, q = {q / 1000:g}, {gain / 1000:g} counts per electron, offset {offset}, "
        how += f"read noise {noise / 1000:g}, tile {tile}"
    return CodecError(
        f"{dataset}: written by the original B3D filter ({ORIGINAL_B3D_FILTER}; {how}), whose stream is not publicly "
        "described: read it with the authors' plugin and store it anew"
    )
