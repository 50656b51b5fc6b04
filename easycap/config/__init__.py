"""From the command line to a checked config, and from that to objects."""
