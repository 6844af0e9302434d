"""Damage done to files: by chance, and so that what reads them does not stop at the first checksum."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Sequence

# Lengths, counts and offsets at which arithmetic goes wrong.
_EDGES = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_TEXTS = (b"0", b"-1", b"1e999", b"99999999999", b"null", b"[]", b"{}", b'"', b"[", b"F64", b"BF16", b"body.1.weight")


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One of the seeds, damaged; checksums and lengths around the damage mended more often than not."""
    data = chance.choice(seeds)
    if chance.random() < 0.65:
        mended = _mended(data, seeds, chance)
        if mended is not None:
            return mended
    return _havoc(data, seeds, chance)


def _havoc(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """A few changes anywhere."""
    found = bytearray(data)
    for _ in range(min(1 + int(chance.expovariate(0.5)), 12)):
        if not found:
            return bytes(found)
        at = chance.randrange(len(found))
        span = min(1 + int(chance.expovariate(0.05)), len(found) - at)
        match chance.randrange(8):
            case 0:
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                found[at] = chance.randrange(256)
            case 2:
                size = chance.choice((1, 2, 4, 8))
                value = (chance.choice(_EDGES) + chance.choice((0, 0, -1, 1))) % 256**size
                found[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))
            case 3:
                del found[at : at + span]
            case 4:
                found[at:at] = found[at : at + span] * chance.choice((1, 2, 40))
            case 5:
                found[at : at + span] = bytes(span) if chance.random() < 0.5 else chance.randbytes(span)
            case 6:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                found[at : at + span] = other[start : start + span]
            case _:
                if chance.random() < 0.3:
                    del found[at:]
    return bytes(found)


def _mended(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes | None:
    """Damage inside the parts of a format that checks itself; None for the others."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(data, seeds, chance)
    if data[:4] == b"PK\x03\x04":
        return _archive(data, seeds, chance)
    if data[8:9] == b"{":
        return _safetensors(data, chance)
    return None


def _png(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    chunks = []
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    place = chance.randrange(len(chunks))
    kind, payload = chunks[place]
    if kind in (b"IDAT", b"zTXt") and chance.random() < 0.7:
        try:
            payload = zlib.compress(_havoc(zlib.decompress(payload), seeds, chance))
        except zlib.error:
            payload = _havoc(payload, seeds, chance)
    else:
        payload = _havoc(payload, seeds, chance)
    chunks[place] = (kind, payload)
    if chance.random() < 0.2:
        chunks.insert(chance.randrange(len(chunks)), chance.choice(chunks))
    if chance.random() < 0.2:
        del chunks[chance.randrange(len(chunks))]
    parts = [struct.pack(">I", len(p)) + k + p + struct.pack(">I", zlib.crc32(k + p)) for k, p in chunks]
    return data[:8] + b"".join(parts)


def _archive(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = {record.filename: archive.read(record) for record in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    name = chance.choice([*records, *(each for each in records if each.endswith("data.pkl"))])
    records[name] = _havoc(records[name], seeds, chance)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", chance.choice((zipfile.ZIP_STORED,) * 3 + (zipfile.ZIP_DEFLATED,))) as archive:
        for each, content in records.items():
            archive.writestr(each, content)
    return file.getvalue()


def _safetensors(data: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = bytearray(data[8 : 8 + length])
    for _ in range(chance.randrange(1, 4)):
        if header:
            at = chance.randrange(len(header))
            header[at : at + chance.randrange(6)] = chance.choice(_TEXTS)
    return struct.pack("<Q", len(header)) + bytes(header) + data[8 + length :]
