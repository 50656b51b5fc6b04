"""Released weights, and captions of any origin, as runs."""
