"""Fuse a model and write it for other programs."""
