"""A run's folder: written, read and found; trackers."""
