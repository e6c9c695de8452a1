"""Chunks of MRCZ files as they stand there: Blosc of version 2 and 5, for Zarr v2 and v3. It only reads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numcodecs.abc
import numcodecs.blosc
import numpy as np
from numcodecs.compat import ndarray_copy
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.core.common import parse_named_configuration

from mrczdask.errors import CodecError
from mrczdask.formats.blosc_frame import BLOSC2, DECODED, HEADER_BYTES, MAX_FRAME_BYTES, VERSIONS, parse_chunk_header

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

NAME: Final = "mrczdask.blosc_frame"


def unpack_blosc(chunk: Any, nbytes: int) -> NDArray[np.uint8]:
    """Unpack a Blosc chunk of either version that holds `nbytes`; nothing is allocated before that is checked.

    Raises
    ------
    CodecError
        It is no Blosc chunk, of another size, or corrupt.
    """
    raw = bytes(chunk)
    if len(raw) < HEADER_BYTES:
        raise CodecError(f"{NAME}: {len(raw)} bytes are no Blosc chunk: the file has changed or is truncated")
    header = parse_chunk_header(raw)
    if header.version not in VERSIONS or header.nbytes != nbytes or header.cbytes > len(raw):
        raise CodecError(
            f"{NAME}: a chunk of {nbytes} bytes was expected, the {len(raw)} bytes say version {header.version}, "
            f"{header.nbytes} bytes: the file has changed since it was indexed"
        )
    if not header.is_memcpy and header.codec not in DECODED:
        raise CodecError(f"{NAME}: the chunk is packed by {header.codec}, which is not read here")
    out = np.empty(nbytes, np.uint8)
    try:
        if header.version == BLOSC2:
            import blosc2

            blosc2.decompress2(raw, dst=out, nthreads=1)
        else:
            numcodecs.blosc.decompress(raw, out)
    except Exception as error:  # RuntimeError, ValueError or TypeError by the kind of fault
        raise CodecError(f"{NAME}: the chunk does not unpack ({error}): it is corrupt") from None
    return out


class BloscFrameNumcodec(numcodecs.abc.Codec):  # type: ignore[misc]
    """`BloscFrame` for numcodecs, Zarr v2 and kerchunk references. It reads only.

    Parameters
    ----------
    nbytes : int
        Size of every chunk, unpacked.

    Examples
    --------
    >>> import numcodecs.blosc
    >>> import mrczdask as md
    >>> codec = md.codecs.BloscFrameNumcodec(nbytes=5)
    >>> codec.decode(numcodecs.blosc.compress(b"movie", b"zstd", 1, 0)).tobytes()
    b'movie'
    """

    codec_id = NAME

    def __init__(self, nbytes: int):
        self.nbytes = _checked(nbytes)

    def encode(self, buf: Any) -> Any:
        """Refuse: the chunks are those of an MRCZ file."""
        raise CodecError(f"{NAME} only reads the chunks of MRCZ files: write with codecs of Zarr")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Unpack a chunk."""
        return ndarray_copy(unpack_blosc(numcodecs.compat.ensure_contiguous_ndarray(buf), self.nbytes), out)


@dataclass(frozen=True)
class BloscFrame(BytesBytesCodec):
    """Reads the chunks of MRCZ files in Zarr v3: Blosc of version 2, which Zarr reads too, and 5, which it does not.

    Parameters
    ----------
    nbytes : int
        Size of every chunk, unpacked: checked before memory is taken.

    Examples
    --------
    >>> import mrczdask as md
    >>> md.codecs.BloscFrame(nbytes=4096).to_dict()["name"]
    'mrczdask.blosc_frame'
    """

    is_fixed_size = False
    codec_name: ClassVar[str] = NAME

    nbytes: int

    def __post_init__(self) -> None:
        _checked(self.nbytes)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the codec from its JSON in zarr.json."""
        _, configuration = parse_named_configuration(data, NAME)
        settings: dict[str, Any] = dict(configuration)
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's JSON for zarr.json."""
        return {"name": NAME, "configuration": {"nbytes": self.nbytes}}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known."""
        raise NotImplementedError

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        unpacked: Any = unpack_blosc(chunk_data.as_numpy_array(), self.nbytes)
        return chunk_spec.prototype.buffer.from_array_like(unpacked)

    def _encode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        raise CodecError(f"{NAME} only reads the chunks of MRCZ files: write with codecs of Zarr")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return self._encode_sync(chunk_data, chunk_spec)


def _checked(nbytes: int) -> int:
    if not isinstance(nbytes, int) or not 0 < nbytes <= MAX_FRAME_BYTES:
        raise CodecError(f"{NAME}: nbytes={nbytes!r}: a chunk has 1 to {MAX_FRAME_BYTES} bytes")
    return nbytes
