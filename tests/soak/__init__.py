"""Long runs of what the tests do in short: each a command that prints its figures and fails if a promise was broken."""
