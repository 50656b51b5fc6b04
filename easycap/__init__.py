"""easycap trains, sweeps and compares image captioners from one command line."""

__version__ = "0.1.0"
