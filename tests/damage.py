"""Damage to files, at random but the same for the same generator: JSON, CSV and bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

# What an edit puts in the place of a value.
VALUES = (
    *(None, True, False, 0, 1, -1, -5, 7, 3.5, -0.5, 1e300, float("nan"), float("inf"), 10**30),
    *("", "x", "../../etc/passwd", "a\nb", "\ud800", "NaN", "0", [], [[]], {}, {"a": 1}),
    *([1, 2, 3], ["x"], [None]),
)


def edit_json(text: str, rng: np.random.Generator) -> tuple[str, bytes]:
    """What was done to a JSON file's text, in words, and its bytes after it."""
    kind = rng.choice(
        [
            *("delete", "value", "value", "value", "nest", "shuffle", "rename", "number", "number"),
            *("add", "twice", "cut", "bytes", "encoding", "deep"),
        ]
    )
    if kind == "cut":
        place = int(rng.integers(len(text)))
        return f"cut at {place}", text[:place].encode()
    if kind == "bytes":
        data = bytearray(text.encode())
        place = int(rng.integers(len(data)))
        data[place] = int(rng.integers(256))
        return f"byte {place}", bytes(data)
    if kind == "encoding":
        name = str(rng.choice(["utf-16", "latin-1", "utf-8-sig", "utf-32"]))
        return name, text.encode(name, "replace")
    if kind == "deep":
        return "deep", b'{"a":' * 100_000
    if kind == "twice":
        place = text.index("{") + 1
        return "twice", (text[:place] + '"format": 1, "format": 2, ' + text[place:]).encode()
    content = json.loads(text)
    holders = [one for one in _holders(content) if one]
    holder = holders[int(rng.integers(len(holders)))]
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = keys[int(rng.integers(len(keys)))]
    words = _edit(kind, holder, key, rng)
    return words, json.dumps(content).encode()


def _edit(kind: str, holder: Any, key: Any, rng: np.random.Generator) -> str:
    old = holder[key]
    if kind == "nest":
        holder[key] = {"a": old} if rng.random() < 0.5 else [old]
    elif kind == "shuffle" and isinstance(holder, list):
        rng.shuffle(holder)
    elif kind == "rename" and isinstance(holder, dict):
        holder[f"{key}2"] = holder.pop(key)
    elif kind == "number" and isinstance(old, int | float):
        holder[key] = old + [1, -1, 0.5, -old - 1, 10**9][int(rng.integers(5))]
    elif kind == "add" and isinstance(holder, dict):
        holder["another"] = 1
    elif kind == "add":
        holder.append(old)
    elif kind == "delete":
        del holder[key]
    else:
        holder[key] = VALUES[int(rng.integers(len(VALUES)))]
    return f"{kind} {key!r}: {json.dumps(old)[:40]}"


def _holders(content: Any) -> list[Any]:
    """All objects and lists within JSON, few of the items of long lists."""
    if isinstance(content, dict):
        inner = list(content.values())
    elif isinstance(content, list):
        inner = content[:4]
    else:
        return []
    return [content, *(one for value in inner for one in _holders(value))]


def edit_csv(text: str, rng: np.random.Generator) -> tuple[str, bytes]:
    """The same for a CSV file."""
    kind = rng.choice(
        ["cut", "bytes", "cell", "cell", "cell", "column", "row", "twice", "encoding"]
    )
    if kind == "encoding":
        return "utf-16", text.encode("utf-16", "surrogatepass")
    data = bytearray(text.encode("utf-8", "surrogateescape"))
    place = int(rng.integers(len(data)))
    if kind == "cut":
        return f"cut at {place}", bytes(data[:place])
    if kind == "bytes":
        data[place] = int(rng.choice([0, 10, 13, 34, 44, 255, 45, 57]))
        return f"byte {place}", bytes(data)
    rows = [line.split(",") for line in text.split("\n")]
    row = int(rng.integers(len(rows) - 1)) if rng.random() < 0.9 else 0
    column = int(rng.integers(len(rows[row])))
    if kind == "cell":
        values = ("", "-1", "x", "nan", "inf", "1e400", "9" * 30, '"', "1.5", "a" * 200_000, "\0")
        rows[row][column] = values[int(rng.integers(len(values)))]
    elif kind == "column":
        for one in rows:
            del one[column : column + 1]
    elif kind == "row":
        del rows[row]
    else:
        rows.insert(row, rows[row])
    changed = "\n".join(",".join(one) for one in rows)
    return f"{kind} {row}, {column}", changed.encode("utf-8", "surrogateescape")
