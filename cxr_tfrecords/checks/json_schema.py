"""Compares the content of a JSON file with a description of what it must hold.

    find_problem({"size": -5}, {"size": Number(1)})
    'size is -5, not a whole number of at least 1'

A description (schema) is one of

    str, bool, object          a text; true or false; anything
    Number, OneOf, Optional, TextOr, Items, Pair   see these classes
    [schema]                   a list, each item as the schema says
    {"a": schema, "b?": schema}  an object with the key a and perhaps b; it may have other keys too
    {EVERY_KEY: schema}        an object all of whose values are as the schema says

pydantic 2.14 or jsonschema 4.26 would do the same with 90 and 97 ms more of processor time at the
start of each command (a third more for `cxr_tfrecords.verify`), and 10 and 3 MB to install on each
worker. Neither can express what most edits break: that the parts of a manifest agree.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection
from typing import Any

EVERY_KEY = "*"
_SHOWN = 60  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number within bounds, both included; without `whole`, any such number."""

    low: float = -(2**63)
    high: float = 2**63 - 1
    whole: bool = True

    def admits(self, value: Any) -> bool:
        if type(value) is not int and (self.whole or type(value) is not float):
            return False
        return _is_small(value) and math.isfinite(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        kind = "whole number" if self.whole else "finite number"
        if self.high < 2**63 - 1:
            return f"a {kind} from {self.low:g} to {self.high:g}"
        return f"a {kind}" + (f" of at least {self.low:g}" if self.low > -(2**63) else "")


def _is_small(value: float) -> bool:
    """Whether a number can be a float: JSON has whole numbers of any length."""
    return not isinstance(value, int) or abs(value) < 2**64


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of some texts or numbers."""

    values: Collection[Any]

    def __str__(self) -> str:
        return f"one of {', '.join(map(show, self.values))}"


@dataclasses.dataclass(frozen=True)
class Optional:
    """null, or a value as another schema says."""

    schema: Any


@dataclasses.dataclass(frozen=True)
class TextOr:
    """A text, or a value as another schema says."""

    schema: Any


@dataclasses.dataclass(frozen=True)
class Pair:
    """A list of a text and a value as another schema says."""

    schema: Any


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of so many items, each as another schema says."""

    schema: Any
    length: int


def find_problem(content: Any, schema: Any, key: str = "") -> str:
    """What is wrong with the first value that is not as the schema says; empty if all are.

    Args:
      key: where `content` stands in its file, as `shards[3].digest`; empty: it is the whole file.
    """
    if isinstance(schema, Optional):
        return "" if content is None else find_problem(content, schema.schema, key)
    if isinstance(schema, TextOr):
        return "" if isinstance(content, str) else find_problem(content, schema.schema, key)
    if isinstance(schema, Pair):
        if not isinstance(content, list) or len(content) != 2 or not isinstance(content[0], str):
            return _wrong(content, "a text and a value", key)
        return find_problem(content[1], schema.schema, f"{key}[1]")
    if isinstance(schema, dict):
        return _find_in_object(content, schema, key)
    if isinstance(schema, Items):
        if not isinstance(content, list) or len(content) != schema.length:
            return _wrong(content, f"a list of {schema.length}", key)
        return find_problem(content, [schema.schema], key)
    if isinstance(schema, list):
        if not isinstance(content, list):
            return _wrong(content, "a list", key)
        problems = (find_problem(v, schema[0], f"{key}[{i}]") for i, v in enumerate(content))
        return next(filter(None, problems), "")
    if isinstance(schema, Number):
        return "" if schema.admits(content) else _wrong(content, str(schema), key)
    if isinstance(schema, OneOf):
        # Compared with their types, because True == 1.
        fits = any(type(v) is type(content) and v == content for v in schema.values)
        return "" if fits else _wrong(content, str(schema), key)
    if isinstance(content, schema):
        return ""
    return _wrong(content, "a text" if schema is str else "true or false", key)


def _find_in_object(content: Any, schema: dict[str, Any], key: str) -> str:
    if not isinstance(content, dict):
        return _wrong(content, "an object", key)
    every = schema.get(EVERY_KEY)
    if every is not None:
        problems = (find_problem(v, every, _join(key, name)) for name, v in content.items())
        return next(filter(None, problems), "")
    for name, inner in schema.items():
        plain = name.removesuffix("?")
        if plain in content:
            problem = find_problem(content[plain], inner, _join(key, plain))
            if problem:
                return problem
        elif plain == name:
            return f"{_join(key, name)} is missing"
    return ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _wrong(content: Any, expected: str, key: str) -> str:
    return f"{key or 'the file'} is {show(content)}, not {expected}"


def show(value: Any) -> str:
    """A value as JSON in one line, cut to `_SHOWN` characters."""
    if isinstance(value, int) and not _is_small(value):
        return "a number of more than 19 digits"
    text = json.dumps(value, ensure_ascii=not isinstance(value, str) or not value.isprintable())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
