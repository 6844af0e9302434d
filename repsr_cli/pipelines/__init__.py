"""Floor 4: one file per act, where files, networks and devices meet."""
