"""The sandbox that chat templates run in: bounded in time, and in the size of every text that they make."""

from __future__ import annotations

import contextvars
import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from quickbrown.text.template import OUTPUT, SECONDS, TemplateError

deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline")  # time.monotonic() of the render's end

# Whose result is as long as a number says, and that no chat template needs.
_WIDE_FILTERS = ("center", "filesizeformat", "format", "pprint", "urlize", "wordwrap")
_WIDE_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})


def compiled(source: str) -> jinja2.Template:
    """The template; it may be rendered while `deadline` is set. Raises what jinja2 raises."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    for name in _WIDE_FILTERS:
        del environment.filters[name]
    del environment.globals["lipsum"]
    environment.filters |= {"tojson": _tojson, "replace": _replace, "join": _join, "indent": _indent}
    environment.filters |= {"_timed": _timed, "_sized": _sized}
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    tree = environment.parse(source)
    for loop in [*tree.find_all(nodes.For)]:
        loop.iter = _filtered(loop.iter, "_timed", loop.lineno)
    for block in [*tree.find_all(nodes.AssignBlock)]:
        block.filter = _filtered(block.filter, "_sized", block.lineno)
    for pair in [*tree.find_all(nodes.Concat)]:
        pair.nodes = [_filtered(nodes.Concat(pair.nodes), "_sized", pair.lineno)]
    return environment.from_string(tree)


def _filtered(node: Any, name: str, line: int) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Loops and calls watch the time; no operation makes a text that would not fit in the output."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        return None  # `format` is left to `is_safe_attribute`

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not (isinstance(obj, str) and attr in _WIDE_METHODS) and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        raise SecurityError(f"access to {attribute!r} of {type(obj).__name__!r} is unsafe")

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        _tick()
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args, **kwargs)
        if isinstance(owner, str) and name == "join":
            return _join(args[0], owner)
        return _sized(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if not numbers and operator in ("**", "%"):
            raise TemplateError(f"the chat template uses {operator} on what is no number, which is not supported")
        if operator == "**" and not (abs(left) < 1 << 32 and abs(right) <= 64):
            raise TemplateError("the chat template computes a power that is too large")
        if operator == "*" and not numbers:
            many, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(times, int) and hasattr(many, "__len__"):
                _fits(len(many) * times)
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _fits(len(left) + len(right))
        return super().call_binop(context, operator, left, right)


def _tick() -> None:
    if time.monotonic() > deadline.get():
        raise TemplateError(f"the chat template takes longer than {SECONDS:g} seconds")


def _timed(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _tick()
        yield item


def _raise_exception(message: object = "") -> None:
    raise TemplateError(f"the chat template refuses these messages: {str(message).strip().rstrip('.')}")


def _tojson(value: Any, indent: int | None = None) -> str:
    """Plain JSON: the text is for a model, not for HTML."""
    if indent is not None and not 0 <= indent <= 16:
        raise TemplateError(f"the chat template indents JSON by {indent}; 0 to 16 are possible")
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _fits(size: int) -> None:
    if size > OUTPUT:
        raise TemplateError(f"the chat template makes a value larger than {OUTPUT} characters")


def _sized(value: Any) -> Any:
    """The value, unless it is a text that is too long."""
    if isinstance(value, str):
        _fits(len(value))
    return value


def _replace(text: object, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    _fits(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


def _join(items: Iterable[Any], between: object = "", attribute: str | None = None) -> str:
    texts = [str(item if attribute is None else item[attribute]) for item in items]
    _fits(sum(map(len, texts)) + len(str(between)) * len(texts))
    return str(between).join(texts)


def _indent(text: object, width: int = 4, first: bool = False, blank: bool = False) -> str:
    lines = str(text).splitlines(keepends=True)
    _fits(len(str(text)) + width * len(lines))
    return "".join(" " * width * ((first or i > 0) and (blank or bool(x.strip()))) + x for i, x in enumerate(lines))
