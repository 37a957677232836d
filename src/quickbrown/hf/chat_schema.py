"""Python functions as tools: the JSON schema that a chat template shows to a model."""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable
from typing import Any

_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_BARE: dict[Any, dict[str, Any]] = {
    **{kind: {"type": name} for kind, name in _SCALARS.items()},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}
_SECTION = re.compile(r"^[ \t]*(Args|Returns|Raises):[ \t]*", re.MULTILINE)
_ARGUMENT = re.compile(r"([ \t]*)(\w+)[ \t]*(?:\([^)\n]*\))?:[ \t]*(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE | re.DOTALL)


class SchemaError(ValueError):
    """A function that cannot be described to a model. The message says what it lacks."""


def get_json_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """The tool that a function is: {"type": "function", "function": {"name", "description", "parameters"}}.

    What it does and what each argument means stand in its docstring, in sections `Args:` and `Returns:`; the types are
    its annotations. An argument's text may end in the values that it can have: `(choices: ["tea", "coffee"])`.

    Raises SchemaError for a function without a docstring, and for arguments without a type or a description.
    """
    name = getattr(function, "__name__", "operation")
    doc = inspect.getdoc(function)
    if not doc or not doc.strip():
        raise SchemaError(f"the tool {name!r} has no docstring; a model reads there what it is for")
    sections = _sections(doc.strip())
    described = _arguments(sections.get("Args", ""))
    properties: dict[str, Any] = {}
    required = []
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise SchemaError(f"the types of the tool {name!r} cannot be found: {error}") from None
    for argument, parameter in _parameters(function).items():
        if parameter.annotation is parameter.empty:
            raise SchemaError(f"the argument {argument!r} of the tool {name!r} has no type")
        if argument not in described:
            raise SchemaError(f"the docstring of the tool {name!r} does not describe its argument {argument!r}")
        schema, text = _schema(hints[argument], f"the argument {argument!r} of the tool {name!r}"), described[argument]
        if choices := _CHOICES.search(text):
            schema["enum"] = _choices(choices[1], argument, name)
            text = text[: choices.start()].strip()
        properties[argument] = schema | {"description": text}
        if parameter.default is parameter.empty:
            required.append(argument)
    parameters = {"type": "object", "properties": properties} | ({"required": required} if required else {})
    tool: dict[str, Any] = {"name": name, "description": sections[""], "parameters": parameters}
    if "return" in hints:
        try:
            tool["return"] = _schema(hints["return"], "what it returns")
        except SchemaError:  # the model never writes it
            return {"type": "function", "function": tool}
        if "Returns" in sections:
            tool["return"] = tool["return"] | {"description": sections["Returns"]}
    return {"type": "function", "function": tool}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Its parameters, without a first `self` or `cls`."""
    found = dict(inspect.signature(function).parameters)
    first = next(iter(found), None)
    if first in ("self", "cls") and found[first].annotation is inspect.Parameter.empty:
        del found[first]
    return found


def _sections(doc: str) -> dict[str, str]:
    """A docstring's text by section; "" is what comes before the first."""
    found: dict[str, str] = {}
    name, at = "", 0
    for mark in _SECTION.finditer(doc):
        found.setdefault(name, doc[at : mark.start()].strip("\n" if name == "Args" else None))
        name, at = mark[1], mark.end()
    found.setdefault(name, doc[at:].strip("\n" if name == "Args" else None))
    return found


def _arguments(text: str) -> dict[str, str]:
    """The description of each argument: what is indented deeper than its name goes on with it."""
    found: dict[str, str] = {}
    name, depth = "", None
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _ARGUMENT.match(line)
        if match and (depth is None or len(match[1]) <= depth):
            name, depth = match[2], len(match[1])
            found[name] = match[3].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _choices(text: str, argument: str, name: str) -> list[Any]:
    try:
        values = json.loads(text)
        if not isinstance(values, list):
            raise ValueError
    except ValueError:
        raise SchemaError(f"the choices of {argument!r} of the tool {name!r} must be a JSON list, not {text}") from None
    return [value.strip() if isinstance(value, str) else value for value in values]


def _schema(hint: Any, what: str) -> dict[str, Any]:
    """The schema of a type; `what` has it, for the error."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _values([member.value for member in hint], what)
    if origin is typing.Literal:
        return _values(list(args), what)
    if origin in (typing.Union, types.UnionType):
        return _union([_schema(arg, what) for arg in args if arg is not type(None)], type(None) in args)
    if not args and origin in _BARE:  # typing.List and the like
        return dict(_BARE[origin])
    if origin is list:
        return {"type": "array", "items": _schema(args[0], what)}
    if origin is tuple and len(args) > 1 and ... not in args:
        return {"type": "array", "prefixItems": [_schema(arg, what) for arg in args]}
    if origin is tuple:
        raise SchemaError(f"{what} is a tuple of one type; a list of it says the same")
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], what)}
    try:
        return dict(_BARE[hint])
    except (KeyError, TypeError):
        raise SchemaError(
            f"{what} has the type {hint!r}, which no JSON schema is known for; use str, int, float, bool, list, tuple, "
            "dict, Literal, Enum or unions of them, or write the schema yourself and pass that"
        ) from None


def _values(values: list[Any], what: str) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise SchemaError(f"{what} must have values that are texts, numbers, True, False or None, not {values!r}")
    kinds = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _union(options: list[dict[str, Any]], nullable: bool) -> dict[str, Any]:
    if len(options) == 1:
        schema = options[0]
    elif all(option.keys() == {"type"} and isinstance(option["type"], str) for option in options):
        names = sorted({option["type"] for option in options})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": options}
    return schema | {"nullable": True} if nullable else schema
