"""What a CrystFEL geometry file says of bad pixels besides regions: flags of values, edges, masks in files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from mrczdask.errors import MrcFormatError

_OLD_MASK: Final = {
    "mask": "mask0_data",
    "mask_file": "mask0_file",
    "mask_good": "mask0_goodbits",
    "mask_bad": "mask0_badbits",
}
_MASK: Final = re.compile(r"mask([0-7])_(data|file|goodbits|badbits)")


@dataclass(frozen=True)
class MaskPlace:
    """A mask: a pixel is bad where any of `bad_bits` is set, or not all of `good_bits` are. No file: that of frames."""

    data: str = ""
    file: str = ""
    good_bits: int = 0
    bad_bits: int = 0


@dataclass(frozen=True)
class BadPixels:
    """What one panel says: counts are not below `lowest`, not above `highest` and not among `equal`; `edge` pixels of
    each side are bad; `gain` is the number of counts of a photon, `per_ev` of an eV."""

    lowest: float = -math.inf
    highest: float = math.inf
    equal: tuple[float, ...] = ()
    edge: int = 0
    masks: tuple[tuple[str, MaskPlace], ...] = ()
    gain: float | None = None
    per_ev: float | None = None

    def told(self, key: str, value: str) -> BadPixels:
        """The same with one line more."""
        if key == "flag_lessthan":
            return replace(self, lowest=max(self.lowest, float(value)))
        if key == "flag_morethan":
            return replace(self, highest=min(self.highest, float(value)))
        if key == "flag_equal":
            return replace(self, equal=(*self.equal, float(value)))
        if key == "mask_edge_pixels":
            return replace(self, edge=int(float(value)))
        if key == "adu_per_photon":
            return replace(self, gain=float(value), per_ev=None)
        if key == "adu_per_eV":
            return replace(self, gain=None, per_ev=float(value))
        if match := _MASK.fullmatch(_OLD_MASK.get(key, key)):
            number, part = match.groups()
            masks = dict(self.masks)
            masks[number] = _mask_told(masks.get(number, MaskPlace()), part, value)
            return replace(self, masks=tuple(masks.items()))
        return self


def bad_pixels_of(lines: Iterable[tuple[str | None, str, str]]) -> dict[str, BadPixels]:
    """By panel, from (panel or None, key, value) of each line: what stands before a panel holds for it too.

    Raises
    ------
    MrcFormatError
        A value is no number.
    """
    common, panels = BadPixels(), dict[str, BadPixels]()
    for name, key, value in lines:
        if name is not None and name.startswith("bad"):
            continue
        try:
            if name is None:
                common = common.told(key, value)
            else:
                panels[name] = panels.get(name, common).told(key, value)
        except ValueError:
            where = key if name is None else f"{name}/{key}"
            raise MrcFormatError(f"{where} = {value}: this is no number") from None
    return panels


def _mask_told(mask: MaskPlace, part: str, value: str) -> MaskPlace:
    if part == "data":
        return replace(mask, data=value)
    if part == "file":
        return replace(mask, file=value)
    bits = int(value, 0)
    return replace(mask, good_bits=bits) if part == "goodbits" else replace(mask, bad_bits=bits)
