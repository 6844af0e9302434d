"""reporting.py: numbers of bytes as text."""

from __future__ import annotations

from repsr_cli.reporting import bytes_text


def test_numbers_of_bytes() -> None:
    for count, text in (
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (38_411, "38.4 kB"),
        (1_340_000, "1.3 MB"),
        (5 * 10**9, "5.0 GB"),
        (7 * 10**18, "7000.0 PB"),
    ):
        assert bytes_text(count) == text
