"""Simulated data with known truth, lazy, the same pixels for any chunking."""

from __future__ import annotations

from mrczdask.simulate.defects import Defects
from mrczdask.simulate.diffraction import SimulatedStills, stills
from mrczdask.simulate.electrons import ElectronFrames, electron_frames
from mrczdask.simulate.entropy import poisson_entropy, readout_entropy
from mrczdask.simulate.flat import poisson
from mrczdask.simulate.gain import Gain
from mrczdask.simulate.localisation import Fluorescence, fluorescence, localisation
from mrczdask.simulate.localise import cramer_rao_bound, localise
from mrczdask.simulate.movies import SimulatedMovie, SimulatedSession, movie, session
from mrczdask.simulate.pattern import Pattern
from mrczdask.simulate.readout import Readout
from mrczdask.simulate.specimen import Specimen
from mrczdask.simulate.stem import StemScan, stem

__all__ = [
    "Defects",
    "ElectronFrames",
    "Fluorescence",
    "Gain",
    "Pattern",
    "Readout",
    "SimulatedMovie",
    "SimulatedSession",
    "SimulatedStills",
    "Specimen",
    "StemScan",
    "cramer_rao_bound",
    "electron_frames",
    "fluorescence",
    "localisation",
    "localise",
    "movie",
    "poisson",
    "poisson_entropy",
    "readout_entropy",
    "session",
    "stem",
    "stills",
]
