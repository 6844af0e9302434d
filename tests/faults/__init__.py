"""Fault injection over the command line: every trial breaks one thing and checks every promise."""
