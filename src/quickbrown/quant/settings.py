"""Fields of a quantization_config, which is not trusted: each is checked as it is read. All raise ValueError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_BIGGEST = 1 << 31


def whole(config: Mapping[str, Any], *names: str, missing: int | None = None) -> int:
    """The whole number under the first of these names that is there."""
    for name in names:
        if (value := config.get(name)) is not None:
            if type(value) is not int:
                raise ValueError(f"{name} must be a whole number, not {value!r}")
            if abs(value) > _BIGGEST:
                raise ValueError(f"{name} is {value}, and no size is above {_BIGGEST}")
            return value
    if missing is None:
        raise ValueError(f"{names[0]} is missing")
    return missing


def one_of(config: Mapping[str, Any], name: str, read: Sequence[str], missing: str) -> str:
    """A text out of those that are read."""
    value = config.get(name)
    value = missing if value is None else value
    if not isinstance(value, str) or value.lower() not in read:
        raise ValueError(f"{name} is {value!r}; read is {' or '.join(map(repr, read))}")
    return value.lower()


def refuse(config: Mapping[str, Any], harmless: Mapping[str, Sequence[Any]]) -> None:
    """Raise for a field that has another value than those."""
    for name, values in harmless.items():
        if name in config and config[name] not in values:
            raise ValueError(f"{name} is {config[name]!r}, which is not read")


def block(config: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """Two sizes, rows and columns; None where there are none."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and 0 < n <= _BIGGEST for n in value):
        raise ValueError(f"{name} must be two sizes, not {value!r}")
    return value[0], value[1]
