"""Floor 3: tensors in, tensors out. Knows no files."""
