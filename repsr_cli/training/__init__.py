"""What learning needs, minus the loop. Works where PyAV is not installed."""
