"""Weights that others have released, and captions from anywhere, as runs."""
