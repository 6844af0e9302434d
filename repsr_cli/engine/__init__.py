"""Tensors in, tensors out. Knows no files."""
