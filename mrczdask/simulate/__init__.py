"""Simulated data with known truth, lazy, the same pixels for any chunking."""
