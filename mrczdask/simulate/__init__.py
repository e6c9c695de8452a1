"""Simulated data with known truth, lazy, the same pixels for any chunking."""

from __future__ import annotations

from mrczdask.simulate.flat import poisson

__all__ = ["poisson"]
