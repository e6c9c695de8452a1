"""Assertions for code that uses this package."""
