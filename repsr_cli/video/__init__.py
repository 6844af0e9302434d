"""Read and write video without loss."""
