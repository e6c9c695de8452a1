"""Regions, schedulers, progress: how long work runs, the same on threads and on a cluster."""
