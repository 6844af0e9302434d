"""Run a body with torch or with another engine."""
