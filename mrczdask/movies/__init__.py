"""Graphs over movies and sessions."""
