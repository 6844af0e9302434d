"""Where segments and images are computed."""
