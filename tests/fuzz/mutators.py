"""Changes to a file that a decoder may or may not notice, the same for the same seed and number."""

from __future__ import annotations

import random
import zlib

from tests.fuzz import structure
from tests.fuzz.corpus import corpus

_NUMBERS = (0, 1, 2, 7, 8, 9, 16, 17, 127, 128, 255, 256, 257, 1000, 4096, 32767, 32768, 65535)
_LARGE = (65536, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 9)


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """Name of the valid file that was changed, and the changed file."""
    rng = random.Random(f"{seed}-{number}")
    files = corpus()
    name = rng.choice(list(files))
    kind, data = name.partition(":")[0], files[name]
    if rng.random() < 0.7:
        parts = structure.split(kind, data)
        if rng.random() < 0.3:  # the image data of a PNG as they are packed
            parts = [
                (b"IDAT", zlib.compress(body, 1)) if head == b"rows" else (head, body)
                for head, body in parts
            ]
        others = [other for other in files if other.partition(":")[0] == kind]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            donor = structure.split(kind, files[rng.choice(others)])
            parts = _change_parts(rng, parts, donor)
        data = structure.join(kind, parts)
    else:
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = _change_bytes(rng, data)
    if kind == "tfrecord" and rng.random() < 0.1:
        data = structure.wrong_length(data, rng.choice((*_NUMBERS, *_LARGE, (1 << 64) - 1)))
    if rng.random() < 0.05:
        data = data[: rng.randrange(len(data) + 1)]
    return name, data


def _change_parts(
    rng: random.Random, parts: list[structure.Part], donor: list[structure.Part]
) -> list[structure.Part]:
    parts = list(parts)
    at = rng.randrange(len(parts)) if parts else 0
    action = rng.choice(("content",) * 6 + ("drop", "repeat", "many", "move", "insert", "exchange"))
    if action in ("insert", "exchange") or not parts:
        parts[at : at + (action == "exchange")] = [rng.choice(donor)]
        return parts
    head, body = parts[at]
    frame = structure.split_frame(body) if rng.random() < 0.8 else None
    if frame:
        inner, segments = frame
        parts[at] = head, structure.join_frame(inner, _change_parts(rng, segments, segments))
    elif action == "content":
        parts[at] = head, _change_bytes(rng, body)
    elif action in ("repeat", "many"):
        parts[at:at] = [parts[at]] * (1 if action == "repeat" else rng.choice((20, 300)))
    else:
        del parts[at]
        if action == "move":
            parts.insert(rng.randrange(len(parts) + 1), (head, body))
    return parts


def _change_bytes(rng: random.Random, data: bytes) -> bytes:
    """One change to bytes that may be empty."""
    result = bytearray(data)
    # A start more often than anything else: headers are there.
    start = rng.randrange(len(data) + 1)
    if rng.random() < 0.4:
        start = min(start, rng.randrange(64))
    length = rng.choice((1, 1, 2, 4, 8, 64, 500))
    action = rng.randrange(8)
    if action == 0:
        for _ in range(rng.choice((1, 1, 1, 8))):
            if data:
                result[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif action == 1:
        size = rng.choice((1, 2, 2, 4, 4))
        value = rng.choice(_NUMBERS + _LARGE) % (1 << 8 * size)
        result[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))
    elif action == 2:
        result[start : start + length] = rng.randbytes(length)
    elif action == 3:
        del result[start : start + length]
    elif action == 4:
        result[start:start] = result[start : start + length] * rng.choice((1, 1, 2, 50))
    elif action == 5:
        result[start:start] = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length))
    elif action == 6:
        other = rng.randrange(len(data) + 1)
        result[start : start + length] = data[other : other + length]
    elif data:
        # ASCII numbers of DICOM, and characters beside the right one.
        at = min(start, len(data) - 1)
        result[at] = rng.choice((result[at] + 1, result[at] - 1, 0x2D, 0x20, 0x39, 0x5C)) % 256
    return bytes(result)
