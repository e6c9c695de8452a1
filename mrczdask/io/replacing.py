"""New arrays in place of a group's old ones: written beside them, and put in their place when they are whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from mrczdask.errors import ResumeError
from mrczdask.execution.resume import check_plan, region_lock
from mrczdask.io.archive_group import arrays_of
from mrczdask.io.given_stores import keeps_journal
from mrczdask.io.stores import (
    BESIDE,
    CREATING,
    JOURNAL,
    METADATA,
    PLAN,
    STATE,
    VERB,
    ArchiveStore,
    Place,
    delete_dir,
    journal_of,
    json_buffer,
    open_store,
)

_MARKER: Final = "replace.json"
"""In it, once all are whole: what is to be deleted and moved. Whoever finds it finishes that."""
_PAUSE_S: Final = 0.1


class Plan(Protocol):
    """What is to stand in a group of an archive."""

    @property
    def place(self) -> Place: ...
    @property
    def group(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def name(self) -> str: ...
    @property
    def content(self) -> Mapping[str, Any]:
        """What must be the same to go on."""
        ...

    def stored(self) -> Mapping[str, Any] | None:
        """The content that the group was begun with, where it was created whole."""
        ...

    def foreign(self) -> str | None:
        """Something in the group that another program, or another call, has written."""
        ...

    def create(self) -> None:
        """Make the arrays, in place of those that are there."""
        ...


P = TypeVar("P", bound=Plan)


def prepared(plan: P, *, resume: bool, overwrite: bool, in_place: bool = False) -> P:
    """Check what is stored against a plan, or create it; return the plan to carry out.

    That is the given one, or one beside whose arrays `put_in_place` puts in the place of the old ones: these may be
    what the new ones are computed from. `in_place`: nothing can be written beside.

    Raises
    ------
    ResumeError
        The group was begun with other parameters, or by another verb or program.
    """
    if resume and plan.stored() == plan.content and _marker(plan) is None:
        return plan  # nothing is created, so nobody need be kept from it
    with _creating(plan):
        finish(_store(plan), plan.group)
        stored, beside = plan.stored(), replace(plan, group=beside_of(plan.group))  # type: ignore[type-var]
        if resume:
            if stored is None and (foreign := plan.foreign()):
                raise ResumeError(
                    f"{plan.name}: holds {foreign} and no plan of {VERB}: resume=False, overwrite=True "
                    "(--no-resume --overwrite) replaces it, another group= keeps it"
                )
            if stored is None:
                plan.create()
            elif stored != plan.content and beside.stored() == plan.content:
                return beside
            else:
                check_plan(stored, plan.content, plan.name)
            return plan
        in_place = in_place or (isinstance(plan.place, Store) and not keeps_journal(plan.place))
        held = sorted(arrays_of(_store(plan), plan.group))
        if held and not overwrite and (in_place or not _is_ours(plan, held)):
            raise ResumeError(
                f"{plan.name}: holds {', '.join(held[:3])}, which {_why(in_place)}: overwrite=True (--overwrite) "
                "replaces it, another group= keeps it"
            )
        chosen = beside if held and not in_place else plan
        chosen.create()
        return chosen


def _is_ours(plan: Plan, arrays: Sequence[str]) -> bool:
    """Whether the arrays of a group were written by `write_archive`, under whatever names."""
    journal = journal_of(plan.place, plan.group, plan.options)
    found = (journal.read(f"{name}/{JOURNAL}/{file}") for name in arrays for file in (PLAN, STATE))
    return any(content.get("plan", content).get("verb") == VERB for content in found if content)


def _marker(plan: Plan) -> Any:
    return _read(_store(plan), f"{beside_of(plan.group)}/{_MARKER}")


def _why(in_place: bool) -> str:
    return "would be lost before new pixels are there" if in_place else f"{VERB} did not write"


def _store(plan: Plan) -> ArchiveStore:
    return open_store(plan.place, plan.options, read_only=False)


@contextmanager
def _creating(plan: Plan) -> Iterator[None]:
    """One creates a group at a time; who comes second finds what the first has made."""
    journal = journal_of(plan.place, plan.group, plan.options)
    while True:
        with region_lock(journal, CREATING) as mine:
            if mine:
                yield
                return
        time.sleep(_PAUSE_S)


def beside_of(group: str) -> str:
    """The group in which the new arrays of a group are written."""
    return f"{group}/{BESIDE}".lstrip("/")


def put_in_place(store: ArchiveStore, group: str) -> None:
    """Let the arrays beside, which are whole, take the place of those of the group."""
    mark(store, group)
    finish(store, group)


def mark(store: ArchiveStore, group: str) -> None:
    """Mark the arrays beside as whole: from now on whoever comes puts them in place."""
    beside = beside_of(group)
    new, old = sorted(arrays_of(store, beside)), sorted(arrays_of(store, group))
    if new:
        work = {"move": new, "delete": [name for name in old if name not in new]}
        sync(store.set(f"{beside}/{_MARKER}", json_buffer(work)))


def finish(store: ArchiveStore, group: str) -> None:
    """Finish what `put_in_place` began; each step can be done again by whoever comes after a kill."""
    beside = beside_of(group)
    work = _read(store, f"{beside}/{_MARKER}")
    if work is None:
        return
    for name in work["delete"]:
        delete_dir(store, _join(group, name))
    for name in work["move"]:
        _move(store, _join(beside, name), _join(group, name))
    new, old = _read(store, f"{beside}/{METADATA}"), _read(store, _join(group, METADATA))
    if new is not None:
        sync(store.set(_join(group, METADATA), json_buffer({**(old or new), "attributes": new["attributes"]})))
    sync(store.delete(f"{beside}/{_MARKER}"))
    delete_dir(store, beside)


def _move(store: ArchiveStore, source: str, target: str) -> None:
    """Move an array; its metadata are the last that go, so that a killed move is begun again."""
    if sync(store.get(f"{source}/{METADATA}")) is None:
        return
    inner = store.store
    if type(inner) is LocalStore:
        shutil.rmtree(inner.root / target, ignore_errors=True)
        os.rename(inner.root / source, inner.root / target)
        return
    delete_dir(store, target)
    sync(_copy(store, source, target))
    sync(store.delete(f"{source}/{METADATA}"))
    delete_dir(store, source)


async def _copy(store: ArchiveStore, source: str, target: str) -> None:
    """Copy all keys, inside an object store where it can."""
    inner = store.store
    async for key in store.list_prefix(f"{source}/"):
        new = target + key.removeprefix(source)
        if isinstance(inner, FsspecStore) and hasattr(inner.fs, "_cp_file"):
            await inner.fs._cp_file(f"{inner.path}/{key}", f"{inner.path}/{new}")
        elif (content := await store.get(key)) is not None:
            await store.set(new, content)


def _join(group: str, name: str) -> str:
    return f"{group}/{name}".lstrip("/")


def _read(store: ArchiveStore, key: str) -> Any:
    raw: Any = sync(store.get(key))
    return None if raw is None else json.loads(raw.to_bytes())
