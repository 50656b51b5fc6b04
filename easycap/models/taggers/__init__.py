"""Taggers: tags from features."""
