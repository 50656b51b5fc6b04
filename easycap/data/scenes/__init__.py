"""Drawn scenes with captions: data for a first run, without a download."""
