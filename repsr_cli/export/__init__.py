"""Fuse training checkpoints, and write models in the formats of other programs."""
