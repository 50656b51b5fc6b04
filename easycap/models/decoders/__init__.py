"""Decoders: words, given the memory."""
