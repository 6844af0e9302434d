"""Floor 2: files to planes and pixels, and back. Knows no network."""
