"""reporting.py: numbers of bytes as text."""

from __future__ import annotations

from repsr_cli.reporting import bytes_text


def test_numbers_of_bytes() -> None:
    for count, text in (
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (38_411, "38.4 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (999_999_999, "1.0 GB"),
        (1_340_000, "1.3 MB"),
        (5 * 10**9, "5.0 GB"),
        (7 * 10**18, "7000.0 PB"),
    ):
        assert bytes_text(count) == text
