"""Check a Zarr archive: shards that are missing, half written or damaged."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import zarr
from dask.delayed import delayed
from zarr.abc.store import SuffixByteRequest
from zarr.codecs import ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.formats.faults import Finding, find
from mrczdask.formats.frame_index import footer_bytes, parse_footer
from mrczdask.io.archive_codecs import configuration_of
from mrczdask.io.source import without_secrets
from mrczdask.io.stores import ERROR, JOURNAL, MISSING, PLAN, VERB, ArchiveStore, all_places, open_store, stored_places

_LISTED: Final = 5
_STANDARD_INDEX: Final = ["bytes", "crc32c"]


def check_archive(
    url: str, *, pixels: bool, progress: Progress = None, storage_options: Mapping[str, Any] | None = None
) -> tuple[list[Finding], int]:
    """What is wrong with an archive, and how many images it holds; see `validate`."""
    store = open_store(url, storage_options, read_only=True)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            node = zarr.open(store, mode="r", zarr_format=3)
            inside = node.members(max_depth=None) if isinstance(node, zarr.Group) else ()
        arrays = [node] if isinstance(node, zarr.Array) else [n for _, n in inside if isinstance(n, zarr.Array)]
    except FileNotFoundError:
        raise FileNotFoundError(without_secrets(url)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [find("archive-metadata", problem=_line(error))], 0
    findings = [find("archive-metadata", problem=_line(w.message)) for w in said if "recognized" in str(w.message)]
    findings += [finding for array in arrays for finding in _missing(store, array)]
    images = sum(math.prod(array.shape[:-2]) for array in arrays if array.ndim > 1)
    return findings + _damaged(store, arrays, pixels, progress, url), images


def _line(error: BaseException | str) -> str:
    return without_secrets(" ".join(str(error).split()))


def _listed(store: ArchiveStore, prefix: str) -> set[str]:
    async def collect() -> set[str]:
        return {key.removeprefix(prefix) async for key in store.list_prefix(prefix)}

    return sync(collect())


def _in(array: zarr.Array[Any], name: str) -> str:
    return f"{array.path}/{name}".lstrip("/")


def _missing(store: ArchiveStore, array: zarr.Array[Any]) -> Iterator[Finding]:
    """Shards that are not there, or not marked as whole."""
    there, journal = stored_places(array), _listed(store, _in(array, f"{JOURNAL}/"))
    raw = sync(store.get(_in(array, f"{JOURNAL}/{PLAN}"))) if PLAN in journal else None
    planned = raw is not None and json.loads(raw.to_bytes()).get("verb") == VERB
    whole = array.attrs.get(MISSING) == ERROR
    left = [key for key in _listed(store, _in(array, "c/")) if key.endswith(".partial")]
    if left:
        yield find("partial-files", n=len(left), array=array.path)
    places = all_places(array)
    found: dict[str, list[str]] = {}
    for place in places:
        key, done = "/".join(map(str, place)), f"{'.'.join(map(str, place))}.done" in journal
        if place not in there:
            code = "shard-missing" if whole else "shards-absent"
            code = ("shard-lost" if done else "shard-unwritten") if planned else code
        elif planned and not done:
            code = "shard-half-written"
        else:
            continue
        found.setdefault(code, []).append(key)
    for code, keys in found.items():
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        values = {"n": len(keys), "total": len(places), "array": array.path, "fill": array.fill_value}
        yield find(code, listed=f"{', '.join(keys[:_LISTED])}{more}", **values)


def _damaged(
    store: ArchiveStore, arrays: list[zarr.Array[Any]], pixels: bool, progress: Progress, label: str
) -> list[Finding]:
    """Shards that do not unpack, or, without pixels, whose index is damaged."""
    check = delayed(_unpack if pixels else _index, pure=False, traverse=False)
    tasks = []
    for array in arrays:
        there = stored_places(array)
        for place in all_places(array):
            if place in there:
                tasks.append(((array.path, "/".join(map(str, place))), check(array, place)))
    found = []
    with track(progress, len(tasks), label) as advance:
        for (name, shard), problem in run_regions(tasks, ordered=False, on_done=advance):
            if problem is not None:
                found.append(find("shard-corrupt", array=name, shard=shard, problem=problem))
    return sorted(found, key=lambda finding: finding.text)


def _unpack(array: zarr.Array[Any], place: tuple[int, ...]) -> str | None:
    """Read a shard whole: every chunk in it is checked by its checksum or its codec."""
    steps = array.shards or array.chunks
    region = tuple(slice(k * step, (k + 1) * step) for k, step in zip(place, steps, strict=True))
    try:
        array[region]
    except Exception as error:  # of whatever class the codec raises
        return _line(error) or type(error).__name__
    return None


def _index(array: zarr.Array[Any], place: tuple[int, ...]) -> str | None:
    """Check the index of a shard."""
    codec = next((c for c in array.metadata.codecs if isinstance(c, ShardingCodec)), None)  # type: ignore[union-attr]
    if codec is None or array.shards is None:
        return None
    is_standard = [c.to_dict()["name"] for c in codec.index_codecs] == _STANDARD_INDEX
    if not is_standard or configuration_of(codec)["index_location"] != "end":
        return None
    entries = math.prod(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True))
    key = _in(array, "c/" + "/".join(map(str, place)))
    part = SuffixByteRequest(footer_bytes(entries))
    raw = sync(array.store.get(key, default_buffer_prototype(), part))
    if raw is None or len(raw) != footer_bytes(entries) or parse_footer(raw.to_bytes()) is None:
        return "the checksum of its index is wrong: it is damaged or truncated"
    return None
