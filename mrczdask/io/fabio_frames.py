"""Frames in the many formats that FabIO reads: CBF, EDF, MarCCD, ADSC and the like, one or several a file."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MissingExtraError, MrcFormatError
from mrczdask.formats.miniheader import PILATUS_MARKS, is_dectris, parse_miniheader
from mrczdask.io.frame_set import FrameSet
from mrczdask.io.hdf5_file import Options
from mrczdask.io.part_reader import joined
from mrczdask.io.reader import FrameReader
from mrczdask.io.source import is_remote, local_path, open_source, unwrapped_name
from mrczdask.io.stamps import file_stamp, file_stamps
from mrczdask.io.validity import DELTA, DUMMY

SINGLE: Final = (".cbf", ".img", ".mccd", ".mar3450", ".mar2300")
"""Formats of one frame a file: the first file tells the shape of all."""
_CBF: Final = "CbfImage"
_CBF_NAME: Final = b"###CBF"
_CBF_START: Final = b"\x0c\x1a\x04\xd5"
"""What stands before the pixels of a CBF file (imgCIF dictionary, `_array_data.data`)."""
_CBF_HEAD: Final = 16 << 10
"""Bytes within which the pixels begin as a rule."""


@dataclass(frozen=True)
class FabioReader:
    """Reads the frames of one file, opened in the task; see `FrameReader`."""

    url: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    storage_options: Options = field(default=None, repr=False)
    stamp: str = field(default="", repr=False)

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        with _opened(self.url, self.storage_options) as image:
            for place, frame in enumerate(frames):
                try:
                    pixels = (image if self.shape[0] == 1 else image.getframe(int(frame))).data
                except Exception as error:  # FabIO's readers raise whatever their code meets
                    problem = f"the frame does not unpack ({error}): the file is corrupt or truncated"
                    raise MrcFormatError(problem, url=self.url, frame=int(frame)) from None
                if pixels is None or pixels.shape != self.shape[1:] or not np.can_cast(pixels.dtype, self.dtype):
                    found = "nothing" if pixels is None else f"{pixels.dtype} {pixels.shape}"
                    problem = f"{found} where {self.dtype} {self.shape[1:]} was expected, as in the first file"
                    raise MrcFormatError(problem, url=self.url, frame=int(frame))
                out[place] = pixels[rows, cols]


def open_fabio_frames(urls: Sequence[str], storage_options: Options = None) -> FrameSet:
    """Open files of one format; of those with one frame a file only the first is opened here."""
    first = _open_one(urls[0], storage_options)
    readers: list[FrameReader] = [first[0]]
    single = unwrapped_name(urls[0]).lower().endswith(SINGLE)
    if single:
        stamps = zip(urls[1:], file_stamps(urls[1:], storage_options), strict=True)
        readers += [FabioReader(url, first[0].shape, first[0].dtype, storage_options, at) for url, at in stamps]
    else:
        readers += [_open_one(url, storage_options)[0] for url in urls[1:]]
    return FrameSet(joined(readers), attrs=first[1])


def _open_one(url: str, options: Options) -> tuple[FabioReader, dict[str, Any]]:
    stamp = file_stamp(url, options)
    with _opened(url, options) as image:
        if len(image.shape) != 2 or np.dtype(image.dtype).kind not in "iuf":
            raise MrcFormatError(f"{image.dtype} {image.shape}: no frames", url=url)
        shape = (int(image.nframes), *map(int, image.shape))
        reader = FabioReader(url, shape, np.dtype(image.dtype).newbyteorder("="), options, stamp)
        return reader, _attrs(image, reader.dtype)


def _opened(url: str, options: Options) -> Any:
    """The image of FabIO: by name where it is local, else from its bytes."""
    try:
        import fabio
    except ImportError:
        raise MissingExtraError(f"{url}: this format needs FabIO: pip install 'mrczdask[diffraction]'") from None
    path = local_path(url)
    try:
        if not is_remote(url):
            if not os.path.exists(path):
                raise FileNotFoundError(path)
            _check_cbf(url, options)
            return fabio.open(path)
        _check_cbf(url, options)
        with open_source(url, options) as source:
            return fabio.open(io.BytesIO(source.read_at(0, source.size)))
    except (FileNotFoundError, MrcFormatError):
        raise
    except Exception as error:  # FabIO's readers raise whatever their code meets
        raise MrcFormatError(f"FabIO does not read it ({error}): it is corrupt or of another format", url=url) from None


def _check_cbf(url: str, options: Options) -> None:
    """Refuse a CBF file that ends before its pixels begin: FabIO looks for their beginning for ever."""
    named = unwrapped_name(url).lower().endswith(".cbf")
    with open_source(url, options) as source:
        head = source.read_at(0, min(_CBF_HEAD, source.size))
        if not (named or head.startswith(_CBF_NAME)) or _CBF_START in head:
            return
        if _CBF_START not in source.read_at(0, source.size):
            raise MrcFormatError("the file ends before the pixels of the CBF begin: it is truncated", url=url)


def _attrs(image: Any, dtype: np.dtype[Any]) -> dict[str, Any]:
    """What the header says of the beam and the detector: of a CBF in the text of DECTRIS, of an EDF by its dummy."""
    header: Mapping[str, Any] = image.header
    attrs = parse_miniheader(str(header.get("_array_data.header_contents", "")))
    if dtype.kind == "i" and type(image).__name__ == _CBF:
        return attrs | PILATUS_MARKS
    said = {str(name).lower(): value for name, value in header.items()}
    dummy, delta = (_number(said.get(name)) for name in ("dummy", "ddummy"))
    if dummy is not None:
        attrs |= {DUMMY: dummy, DELTA: delta or 0.0}
    elif dtype.kind == "i" and is_dectris(*(str(value) for value in header.values())):
        attrs |= PILATUS_MARKS
    return attrs


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
