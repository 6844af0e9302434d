"""Show two results side by side."""
