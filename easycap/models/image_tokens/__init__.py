"""From an encoder's features to the decoder's image tokens."""
