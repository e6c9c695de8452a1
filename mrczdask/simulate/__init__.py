"""Simulated data with known truth, lazy, the same pixels for any chunking."""

from __future__ import annotations

from mrczdask.simulate.defects import Defects
from mrczdask.simulate.flat import poisson
from mrczdask.simulate.gain import Gain
from mrczdask.simulate.movies import SimulatedMovie, SimulatedSession, movie, session
from mrczdask.simulate.pattern import Pattern
from mrczdask.simulate.readout import Readout
from mrczdask.simulate.specimen import Specimen

__all__ = [
    "Defects",
    "Gain",
    "Pattern",
    "Readout",
    "SimulatedMovie",
    "SimulatedSession",
    "Specimen",
    "movie",
    "poisson",
    "session",
]
