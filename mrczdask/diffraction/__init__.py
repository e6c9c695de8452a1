"""Graphs over diffraction frames."""
