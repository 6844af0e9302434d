from __future__ import annotations

from pathlib import Path

import pytest

from repsr_cli.job_records import read_note, twice

NOTE = {"job": "a", "file": [1, 2, 3]}


@pytest.mark.parametrize("bit", [1, 4, 128])
def test_a_flipped_bit_anywhere_in_a_note_costs_nothing(tmp_path: Path, bit: int) -> None:
    file = tmp_path / "complete.json"
    content = bytearray(twice(NOTE).encode())
    for place in range(len(content)):
        damaged = content.copy()
        damaged[place] ^= bit
        file.write_bytes(damaged)
        assert read_note(file) == NOTE, place


def test_a_note_that_is_cut_off_within_its_second_half_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "complete.json"
    content = twice(NOTE).encode()
    for length in range(len(content) // 2, len(content)):
        file.write_bytes(content[:length])
        assert read_note(file) == NOTE, length


def test_what_is_no_note_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "complete.json"
    assert read_note(file) == {}
    wrong = twice(NOTE).replace('"a"', '"b"')  # both halves
    for text in ("", "null", "[1]", "[" * 10000, '{"note": 1}', '{"note": {"a": 1}}', wrong):
        file.write_text(text)
        assert read_note(file) == {}
