"""What is trained: captioners and tag models behind one interface."""
