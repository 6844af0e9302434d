"""Tensors in, tensors out. Handles no files."""
