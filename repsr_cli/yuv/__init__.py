"""Describe and convert planes of luma and chroma."""
