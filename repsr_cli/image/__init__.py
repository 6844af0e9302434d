"""Read and write images without loss."""
