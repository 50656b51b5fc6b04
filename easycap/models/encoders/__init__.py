"""Encoders: features of images."""
