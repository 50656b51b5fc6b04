"""Tar shards in the WebDataset convention: found, indexed, read at any place, written."""
