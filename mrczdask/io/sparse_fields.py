"""The datasets of a group with sparse frames, each checked as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.io.hdf5_file import Options
from mrczdask.io.hdf5_rows import whole


@dataclass(frozen=True)
class Header:
    """The datasets of a group; each is read whole, and refused where it is not what it must be."""

    group: Any
    path: str
    place: str
    options: Options = None

    def __contains__(self, name: str) -> bool:
        return name in self.group

    def node(self, name: str, *, kinds: str = "iuf", shape: tuple[int | None, ...]) -> Any:
        """A dataset that is not read; None in `shape` is any length."""
        node = self.group[name]
        if not hasattr(node, "dtype"):
            raise self.wrong(f"{name} is no dataset")
        found = tuple(map(int, node.shape))
        fits = len(found) == len(shape) and all(w is None or w == n for n, w in zip(found, shape, strict=True))
        if not fits or node.dtype.kind not in kinds:
            wanted = ", ".join("n" if n is None else str(n) for n in shape)
            kind = "integers" if kinds == "iu" else "numbers"
            raise self.wrong(f"{name} is {node.dtype} {found}, ({wanted}) {kind} are wanted")
        return node

    def array(self, name: str, shape: tuple[int | None, ...], *, kinds: str = "iuf") -> NDArray[Any]:
        """A dataset of numbers."""
        return whole(self.node(name, kinds=kinds, shape=shape), self.path, self.options)

    def rising(self, name: str) -> NDArray[Any]:
        """Centres of bins or sectors."""
        values = self.array(name, (None,))
        steps = np.diff(values.astype(np.float64))
        if (
            not values.size
            or not np.isfinite(values).all()
            or (steps < 0).any()
            or (values.size > 1 and not steps.any())
        ):
            raise self.wrong(f"the numbers of {name} do not rise")
        return values

    def plane(self, name: str, mask: NDArray[Any]) -> NDArray[Any]:
        """A map of the pixels, with numbers wherever the mask has."""
        values = self.array(name, mask.shape)
        if not np.isfinite(values[np.isfinite(mask)]).all():
            raise self.wrong(f"{name} has no numbers at pixels that are not masked")
        return values

    def unit(self, name: str) -> dict[str, str]:
        """The attribute of the coordinate a dataset is."""
        said = self.group[name].attrs.get("unit") if name in self.group else None
        return {} if said is None else {"units": text_of(said)}

    def wrong(self, problem: str) -> MrcFormatError:
        """The error that says so."""
        return MrcFormatError(f"{self.place}: {problem}: the file is damaged", url=self.path)


def text_of(value: Any) -> str:
    """A text of HDF5 or Zarr."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
