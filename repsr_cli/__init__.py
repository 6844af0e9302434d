"""repsr: train, fuse and run VGG-style super-resolution networks (RepSR, arXiv 2205.05671)."""

__version__ = "0.1.0"
