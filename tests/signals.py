"""Let children be stopped by what these tests may ignore: shells let background jobs ignore SIGINT, nohup SIGHUP."""

from __future__ import annotations

import signal


def heed(number: signal.Signals) -> None:
    """In a child, before it begins: undo what it inherited for a signal."""
    signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
