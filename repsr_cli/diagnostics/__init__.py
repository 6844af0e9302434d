"""Examine this machine and measure its speed."""
