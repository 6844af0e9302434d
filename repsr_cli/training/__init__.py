"""Floor 3: what learning needs, minus the loop. Works where PyAV is not installed."""
