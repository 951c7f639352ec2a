"""Settings as fields of a frozen dataclass, each with its default, bounds and help in one place.

    @dataclasses.dataclass(frozen=True)
    class Config:
        groups = ("Data", "Optimisation")  # the headings of --help, in this order

        epochs: int = setting(20, "Optimisation", "At most.", within="[1, inf)")

    define_flags(Config)                # --epochs, before the command line is parsed
    config = Config(**flag_values(Config))
    check(config)                       # in __post_init__, so that Python callers are checked too

Flags, checks and the groups of --help (`command_help`) come from these fields. Only absl is needed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags

from cxr_tfrecords.console.command_help import GROUPS, HINTS, not_one_of
from cxr_tfrecords.errors import UserError

flags.disclaim_key_flags()  # flags belong to the module that calls `define_flags`

_KEY = "setting"


@dataclasses.dataclass(frozen=True)
class Setting:
    """The properties of a setting besides its name, type and default.

    Attributes:
      group: heading of --help under which the flag stands.
      help: says what each value means, special values (0, empty) included.
      choices: the values that are allowed; empty: any of the type. It may be the keys of a dict,
        to which entries can be added later.
      within: the interval of a number, as `[0, 1)` or `[1, inf)`; empty: any number.
      parse: makes the value from a flag's list of texts; None: absl reads it by its type.
      may_change: an interrupted run may go on with another value.
      alias: another name of the flag, still accepted.
      hint: to a value that is not one of the choices: the flags that do what it was meant for.
    """

    group: str
    help: str
    choices: Collection[Any] = ()
    within: str = ""
    parse: Callable[[Sequence[str]], Any] | None = None
    may_change: bool = False
    alias: str = ""
    hint: str = ""


def setting(default: Any, group: str, help: str, **properties: Any) -> Any:
    """A dataclass field with this default; the other arguments are those of `Setting`.

    It returns Any, as `dataclasses.field` does for type checkers: the field's annotation is its
    type.
    """
    row = Setting(group, help, **properties)
    return dataclasses.field(default=default, metadata={_KEY: row})


def table(config_class: Any) -> dict[str, Setting]:
    """Field name -> its `Setting`, in the order of the fields that have one."""
    return {
        field.name: field.metadata[_KEY]
        for field in dataclasses.fields(config_class)
        if _KEY in field.metadata
    }


def define_flags(
    config_class: Any,
    names: Collection[str] | None = None,
    values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Defines an absl flag for each setting of a dataclass, or for those in `names`.

    They are defined group by group, in the order of the class's `groups`, for this process's
    command line or, in `values`, for another one.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    rows = table(config_class)
    for name in sorted(rows, key=lambda name: config_class.groups.index(rows[name].group)):
        if names is None or name in names:
            _define(rows[name], fields[name], values)
            if values is flags.FLAGS:
                GROUPS[name] = rows[name].group
                if rows[name].hint:
                    HINTS[name] = rows[name].hint
            if rows[name].alias:
                flags.DEFINE_alias(rows[name].alias, name, flag_values=values)


def _define(row: Setting, field: dataclasses.Field[Any], values: flags.FlagValues) -> None:
    name: str = field.name
    default: Any = field.default
    # The type is a text, such as `float | None`, in modules that do not evaluate annotations.
    kind = getattr(field.type, "__name__", str(field.type)).split(" ")[0]
    if row.parse is not None:
        listed = [default] if isinstance(default, str) and default else list(default)
        flags.DEFINE_list(name, listed, row.help, flag_values=values)
    elif row.choices:
        choices = [str(choice) for choice in row.choices]
        flags.DEFINE_enum(name, str(default), choices, row.help, flag_values=values)
    else:
        define: Any = {
            "bool": flags.DEFINE_bool,
            "int": flags.DEFINE_integer,
            "float": flags.DEFINE_float,
            "str": flags.DEFINE_string,
        }[kind]
        define(name, default, row.help, flag_values=values)


def flag_values(
    config_class: Any,
    names: Collection[str] | None = None,
    values: flags.FlagValues = flags.FLAGS,
) -> dict[str, Any]:
    """Name -> value of the flags that `define_flags` has defined, as the dataclass takes them.

    Raises:
      UserError: a list is malformed.
    """
    result: dict[str, Any] = {}
    defaults: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(config_class)
    }
    for name, row in table(config_class).items():
        if names is None or name in names:
            value: Any = values[name].value
            if row.parse is not None:
                value = row.parse(value)
            elif row.choices:
                value = type(defaults[name])(value)
            result[name] = value
    return result


def check(config: Any) -> None:
    """Refuses a value that is not one of its setting's choices, or outside of its interval.

    Raises:
      UserError: naming flag, value and what is allowed.
    """
    for name, row in table(config).items():
        value = getattr(config, name)
        if row.choices and value not in row.choices:
            raise UserError(f"--{name}={value} {not_one_of(row.choices, row.hint)}")
        if row.within and value is not None and not _lies_within(value, row.within):
            raise UserError(f"--{name}={value} {_requirement(row.within)}")


def _bounds(within: str) -> tuple[float, float]:
    low, high = within[1:-1].split(",")
    return float(low), float(high)


def _lies_within(value: float, within: str) -> bool:
    low, high = _bounds(within)
    above = value >= low if within[0] == "[" else value > low
    return above and (value <= high if within[-1] == "]" else value < high)


def _requirement(within: str) -> str:
    low, high = _bounds(within)
    if math.isinf(high) and not math.isinf(low):
        return f"must be {'at least' if within[0] == '[' else 'above'} {low:g}"
    return "must be a finite number" if math.isinf(low) else f"must lie within {within}"
