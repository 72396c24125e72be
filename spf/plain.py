"""Dataclasses from plain data and back; what is unknown, missing or of the wrong type is refused by name."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists, numbers and strings; `from_dict` reads them back."""
    return _plain(dataclasses.asdict(config))


def from_dict(cls: Any, content: Any, where: str = "") -> Any:
    """Build a config dataclass from plain data, refusing what it does not know.

    Raises:
        ValueError: Naming the key, what is valid, and the nearest valid key.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where or 'the file'} must be a mapping of keys to values, found {type(content).__name__}")
    names = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in content:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(names)}"
            raise ValueError(f"unknown key {_join(where, str(key))!r}; {hint}")
    for name, spec in names.items():
        if name not in content and spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ValueError(f"missing key {_join(where, name)!r}")
    return cls(**{key: _convert(hints[key], value, _join(where, key)) for key, value in content.items()})


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: expected a list, found {value!r}")
        if len(parts) == 2 and parts[1] is not Ellipsis and len(value) != 2:
            raise ValueError(f"{where}: expected two values, found {len(value)}")
        return tuple(_convert(parts[0], item, where) for item in value)
    if origin in (Mapping, dict) or origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected a mapping, found {value!r}")
        return {str(k): _convert(parts[1], v, _join(where, str(k))) for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and not isinstance(kind, types.UnionType):
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ValueError(f"{where}: expected {kind.__name__}, found {value!r}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
