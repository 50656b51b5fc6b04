"""Encoders, image tokens, decoders, taggers, and the models made of them."""
