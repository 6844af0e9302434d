"""The programs that can run a network beside torch."""
