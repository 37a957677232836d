"""The sandbox that chat templates run in: bounded in time, and in the size of every value that they make."""

from __future__ import annotations

import contextvars
import datetime
import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from quickbrown.text.template import OUTPUT, SECONDS, TemplateError

# Whose result is as long as a number says, and that no chat template needs.
_WIDE_FILTERS = ("batch", "center", "filesizeformat", "format", "pprint", "slice", "urlize", "wordwrap")
_WIDE_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
_BITS = 4096  # of a whole number, at most


@dataclass
class Written:
    """How far a render is: characters so far, and from where to where {% generation %} blocks were written."""

    size: int = 0
    generated: list[tuple[int, int]] = field(default_factory=list)


deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline")  # time.monotonic() of the render's end
written: contextvars.ContextVar[Written] = contextvars.ContextVar("written")


def compiled(source: str) -> tuple[jinja2.Template, frozenset[str]]:
    """The template, which may be rendered while `deadline` and `written` are set, and the names of the variables that
    it reads. Raises what jinja2 raises.
    """
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
    for name in _WIDE_FILTERS:
        del environment.filters[name]
    del environment.globals["lipsum"]
    environment.filters |= {"tojson": _tojson, "replace": _replace, "join": _join, "indent": _indent}
    environment.filters = {name: _bounded(filter) for name, filter in environment.filters.items()}
    environment.filters |= {"_timed": _timed, "_sized": _sized}
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals |= {"namespace": _Namespace}
    tree = environment.parse(source)
    names = frozenset(meta.find_undeclared_variables(tree))
    return environment.from_string(_Guards().visit(tree)), names


class _Guards(NodeTransformer):
    """Has loops watch the time, and checks the size of what is put together."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_timed")
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = nodes.Filter(node.filter, "_sized", [], [], None, None, lineno=node.lineno)
        return node

    def checked(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _filtered(node, "_sized")

    visit_Concat = visit_List = visit_Tuple = visit_Dict = checked


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}: what the assistant says, and a model is trained on."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Callable[[], str]) -> str:
        text, at = caller(), written.get()
        at.generated.append((at.size, at.size + len(text)))
        return text


class _Namespace(Namespace):
    """A namespace without names that Python gives a meaning to."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _allowed(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _allowed(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _allowed(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace cannot have {name!r}")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Loops and calls watch the time; no operation makes a value that would not fit in the output."""

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
        return _sized(super().call_binop(context, operator, left, right))


def _bounded(filter: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, whose result may not be too large."""

    @functools.wraps(filter)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        return _sized(filter(*args, **kwargs))

    return bounded


def _tick() -> None:
    if time.monotonic() > deadline.get():
        raise TemplateError(f"the chat template takes longer than {SECONDS:g} seconds")


def _timed(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _tick()
        yield item


def _raise_exception(message: object = "") -> None:
    raise TemplateError(f"the chat template refuses these messages: {str(message).strip().rstrip('.')}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: the text is for a model, not for HTML."""
    if indent is not None and not 0 <= indent <= 16:
        raise TemplateError(f"the chat template indents JSON by {indent}; 0 to 16 are possible")
    if separators is not None and not all(isinstance(text, str) and len(text) <= 16 for text in separators):
        raise TemplateError("the chat template separates JSON by more than 16 characters")
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    parts, size = [], 0
    for part in _timed(encoder.iterencode(value)):
        size += len(part)
        _fits(size)
        parts.append(part)
    return "".join(parts)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _fits(size: int) -> None:
    if size > OUTPUT:
        raise TemplateError(f"the chat template makes a value larger than {OUTPUT} characters")


def _sized(value: Any) -> Any:
    """The value, unless it is too large: a text, a number, or a list or dict with all that it holds, each time."""
    if isinstance(value, str):
        _fits(len(value))
    elif isinstance(value, int):
        if value.bit_length() > _BITS:
            raise TemplateError("the chat template computes a number that is too large")
    elif isinstance(value, (list, tuple, dict)):
        size, left = 0, [value]
        while left:
            held = left.pop()
            for item in [*held, *held.values()] if isinstance(held, dict) else held:
                size += 4 + (len(item) if isinstance(item, str) else 0)  # with its quotes or brackets, and a comma
                if isinstance(item, (list, tuple, dict)):
                    left.append(item)
            _fits(size)
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
