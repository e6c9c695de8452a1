from __future__ import annotations

import mrcfile.dtypes
import mrcfile.utils
import numpy as np
import pytest

from mrczdask.formats.mrc_fields import HEADER, HEADER_BYTES, MODE_DTYPES

MRCFILE_NAMES = {
    "n": "nx",
    "start": "nxstart",
    "m": "mx",
    "cellb": "cellb",
    "map_axes": "mapc",
    "machine_stamp": "machst",
    "labels": "label",
}
MRCZ_ONLY = {"nint", "nreal", "voltage", "cs", "gain", "packed_bytes", "imod_stamp", "imod_flags"}


def test_offsets_agree_with_mrcfile() -> None:
    theirs = mrcfile.dtypes.HEADER_DTYPE
    assert HEADER.itemsize == theirs.itemsize == HEADER_BYTES
    for name in HEADER.names or ():
        if name not in MRCZ_ONLY:
            assert HEADER.fields[name][1] == theirs.fields[MRCFILE_NAMES.get(name, name)][1], name  # type: ignore[index]


@pytest.mark.parametrize("mode", [0, 1, 2, 4, 6, 12])
def test_modes_agree_with_mrcfile(mode: int) -> None:
    assert MODE_DTYPES[mode] == mrcfile.utils.dtype_from_mode(mode)


def test_private_and_packed_modes() -> None:
    assert MODE_DTYPES[3] == np.dtype(("i2", (2,)))
    assert MODE_DTYPES[16] == np.dtype(("u1", (3,)))
    assert MODE_DTYPES[7] == np.int32
    assert MODE_DTYPES[8] == np.uint32
