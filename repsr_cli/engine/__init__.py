"""Run networks over tensors. Handles no files."""
