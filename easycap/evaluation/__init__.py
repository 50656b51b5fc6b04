"""Captioning a split and scoring the captions."""
