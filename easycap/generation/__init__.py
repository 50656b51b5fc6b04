"""Greedy, beam and sampled captions: one implementation over the decoder contract, for every decoder."""
