"""What both codecs share as Zarr v3 serializers and as numcodecs codecs: one code path for all of them."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numcodecs.abc
import numpy as np
from numcodecs.compat import ndarray_copy
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration

from mrczdask.codecs.container import DTYPES, Header
from mrczdask.errors import CodecError

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer


class Serializer(ArrayBytesCodec):
    """A Zarr v3 array-to-bytes codec over two functions of a subclass, which is a frozen dataclass of its settings."""

    is_fixed_size = False
    codec_name: ClassVar[str]
    numcodec_class: ClassVar[type[Numcodec]]

    @abstractmethod
    def encode_array(self, array: Any) -> bytes:
        """Encode an array of any shape and memory order."""

    @abstractmethod
    def open(self, stream: Any) -> tuple[Header, Any]:
        """Check a stream; return its header and what `finish` needs."""

    @abstractmethod
    def finish(self, header: Header, body: Any) -> NDArray[Any]:
        """Decode what `open` has returned."""

    def decode_array(self, stream: Any) -> NDArray[Any]:
        """Decode a stream into the shape, type and memory order that were encoded.

        Raises
        ------
        CodecError
            When the stream is truncated, corrupt, or of another codec or a newer version.
        """
        return self.finish(*self.open(stream))

    def numcodec(self) -> Numcodec:
        """Return the same codec for Zarr v2 and other users of numcodecs."""
        return self.numcodec_class(**self._settings())

    def _settings(self) -> dict[str, Any]:
        """Settings that differ from their defaults, as JSON has them."""
        values = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        return {name: _plain(value) for name, (value, default) in values.items() if value != default}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the codec from its JSON in zarr.json."""
        _, configuration = parse_named_configuration(data, cls.codec_name, require_configuration=False)
        return cls(**(configuration or {}))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's JSON for zarr.json."""
        return {"name": self.codec_name, "configuration": self._settings()}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays of a type that the codec does not take, when they are created."""
        check_dtype(dtype.to_native_dtype(), self.codec_name)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known before encoding."""
        raise NotImplementedError

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return chunk_spec.prototype.buffer.from_bytes(
            self.encode_array(np.ascontiguousarray(chunk_data.as_numpy_array()))
        )

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        header, body = self.open(chunk_data.as_numpy_array())
        dtype = chunk_spec.dtype.to_native_dtype()
        if header.shape != tuple(chunk_spec.shape) or header.dtype != dtype.newbyteorder("="):
            raise CodecError(
                f"{self.codec_name}: the stream holds {header.shape} {header.dtype}, a chunk of the array is "
                f"{tuple(chunk_spec.shape)} {dtype}: the chunk belongs to another array"
            )
        pixels: Any = self.finish(header, body).astype(dtype, copy=False)  # zarr 3.1 and 3.4 type arrays differently
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(pixels)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)


class Numcodec(numcodecs.abc.Codec):  # type: ignore[misc]
    """The same codec for numcodecs: Zarr v2 compressors and filters, kerchunk references, HDF5-like readers."""

    serializer_class: ClassVar[type[Serializer]]

    def __init__(self, **settings: Any):
        self._serializer = self.serializer_class(**settings)

    def encode(self, buf: Any) -> bytes:
        """Encode an array."""
        return self._serializer.encode_array(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a stream, into `out` where given; a stream of another size than `out` is refused."""
        header, body = self._serializer.open(numcodecs.compat.ensure_contiguous_ndarray(buf))
        if out is not None and memoryview(out).nbytes != header.size * header.dtype.itemsize:
            raise CodecError(
                f"{self.codec_id}: the stream holds {header.shape} {header.dtype}, not {memoryview(out).nbytes} bytes"
            )
        return ndarray_copy(self._serializer.finish(header, body), out)

    def get_config(self) -> dict[str, Any]:
        """Return the settings with the codec's id."""
        return {"id": self.codec_id, **self._serializer._settings()}


def check_dtype(dtype: np.dtype[Any], codec: str, most_bytes: int = 4) -> None:
    """Raise CodecError unless the codec takes this type."""
    taken = [each for each in DTYPES if each.itemsize <= most_bytes]
    if dtype.newbyteorder("=") not in taken:
        names = ", ".join(str(each) for each in taken)
        raise CodecError(f"{codec} takes {names}, not {dtype}: convert the array or choose another codec")


def pixels_in(shape: tuple[int, ...] | None, codec: str) -> int | None:
    """Pixels of one pattern or frame; None stays None."""
    if shape is not None and (not shape or min(shape) < 1):
        raise CodecError(f"{codec}: {shape} is no shape of a pattern: give its lengths, such as (128, 128)")
    return math.prod(shape) if shape is not None else None


def as_shape(value: Any) -> tuple[int, ...] | None:
    """A shape from JSON."""
    return tuple(int(n) for n in value) if value is not None else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
