from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repsr_cli.image.inflate import inflate


def cut(data: bytes, step: int) -> Iterator[bytes]:
    return iter([data[at : at + step] for at in range(0, len(data), step)])


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_blocks_come_back_whatever_the_pieces(blocks: list[bytes], step: int) -> None:
    pieces = cut(zlib.compress(b"".join(blocks)), step)
    assert list(inflate(pieces, map(len, blocks))) == blocks


def test_short_and_damaged_streams() -> None:
    data = zlib.compress(bytes(range(256)))
    for short in (data[:-20], data):
        with pytest.raises(EOFError):
            list(inflate(cut(short, 7), [256, 1]))
    with pytest.raises(zlib.error):
        list(inflate(cut(b"x" + data, 7), [256]))


def test_never_more_than_asked_for() -> None:
    pieces = cut(zlib.compress(bytes(1 << 24)), 1 << 10)
    assert next(inflate(pieces, [10])) == bytes(10)
    assert len(list(pieces)) > 5
