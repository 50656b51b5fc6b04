"""Paths, processes, downloads, caches and texts."""
