"""The sandbox that chat templates run in: bounded in time, in the size of every value that they make, and of all."""

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
from jinja2 import filters as usual
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from quickbrown.text.template import MADE, OUTPUT, SECONDS, TemplateError

# Whose result is as long as a number says, or takes the square of their input's length, and that no template needs.
_WIDE_FILTERS = ("batch", "center", "filesizeformat", "format", "pprint", "slice", "striptags", "urlize", "wordwrap")
# What of Python's own values a template may reach: nothing that changes them, or makes much of little.
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset({
        "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal",
        "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition",
        "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
        "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    }),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    range: frozenset({"start", "stop", "step"}),
}  # fmt: skip
# These compare their argument with each place of the text.
_SEARCHES = frozenset({"lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip"})
_SOUGHT = 256  # characters of such an argument, at most
_BITS = 4096  # of a whole number, at most
_DIGITS = 32  # that a number is rounded to, at most
_VALUE = 64  # what a value counts besides its characters
_LISTS = (list, tuple, dict)


@dataclass
class Written:
    """How far a render is.

    size       characters so far
    made       of all values so far, whether they are still there or not
    generated  from where to where {% generation %} blocks were written
    """

    size: int = 0
    made: int = 0
    generated: list[tuple[int, int]] = field(default_factory=list)


deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline")  # time.monotonic() of the render's end
written: contextvars.ContextVar[Written] = contextvars.ContextVar("written")


def compiled(source: str) -> tuple[jinja2.Template, frozenset[str]]:
    """The template, which may be rendered while `deadline` and `written` are set, and the names of the variables that
    it reads. Raises what jinja2 raises.
    """
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
        finalize=_text,
        optimized=False,  # nothing is computed before there is a deadline
    )
    for name in _WIDE_FILTERS:
        del environment.filters[name]
    del environment.globals["lipsum"]
    environment.filters |= {"tojson": _tojson, "replace": _replace, "join": _join, "indent": _indent}
    environment.filters |= {"round": _round, "sum": _sum, "trim": _trim}
    environment.filters = {name: _bounded(filter) for name, filter in environment.filters.items()}
    environment.filters |= {"_timed": _timed, "_sized": _sized, "_sliced": _sliced, "_strung": _strung}
    tests: dict[str, Any] = environment.tests  # whose type says no more than that they are functions
    environment.tests = {name: _bounded(test) for name, test in tests.items()}
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals |= {"namespace": _Namespace, "dict": _dict}
    tree = environment.parse(source)
    names = frozenset(meta.find_undeclared_variables(tree))
    return environment.from_string(_Guards().visit(tree)), names


class _Guards(NodeTransformer):
    """Has loops and comparisons watch the time, and checks the size of what is put together."""

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

    visit_Compare = visit_List = visit_Tuple = visit_Dict = checked

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.Tuple(node.nodes, "load", lineno=node.lineno), "_strung")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_sliced") if isinstance(node.arg, nodes.Slice) else node


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
        given = _dict(*args[1:], **kwargs)
        for name in given:
            _allowed(name)
        Namespace.__init__(args[0], given)

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

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Of what a macro or a block has written."""
        return _strung(list(parts))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        return None  # `format` is left to `is_safe_attribute`

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        kind = next((kind for kind in _METHODS if isinstance(obj, kind)), None)
        if kind or type(obj).__module__ == "builtins":
            return kind is not None and attr in _METHODS[kind]
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        raise SecurityError(f"access to {attribute!r} of {type(obj).__name__!r} is unsafe")

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        _tick()
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args, **kwargs)
        if isinstance(owner, str) and name == "join":
            return _join(args[0], owner)
        if isinstance(owner, str) and name in _SEARCHES:
            _sought(*args, *kwargs.values())
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
    """The filter or test, whose result may not be too large, nor come too late."""

    @functools.wraps(filter)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _tick()
        made = filter(*args, **kwargs)
        return _timed(made) if isinstance(made, Iterator) else _sized(made)

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
    _sought(format)
    return datetime.datetime.now().strftime(format)


def _fits(size: int) -> None:
    if size > OUTPUT:
        raise TemplateError(f"the chat template makes a value larger than {OUTPUT} characters")


def _counted(size: int) -> None:
    """Note that something of this size was made."""
    progress = written.get()
    progress.made += _VALUE + size
    if progress.made > MADE:
        raise TemplateError(f"the chat template makes values of more than {MADE} characters together")


def _sized(value: Any) -> Any:
    """The value, unless it is too large: a text, a number, or a list or dict with all that it holds, each time."""
    _tick()
    _counted(len(value) if isinstance(value, str) else _VALUE * len(value) if isinstance(value, _LISTS) else 0)
    if isinstance(value, str):
        _fits(len(value))
    elif isinstance(value, int):
        if value.bit_length() > _BITS:
            raise TemplateError("the chat template computes a number that is too large")
    elif isinstance(value, _LISTS):
        size, left = 0, [value]
        while left:
            held = left.pop()
            for item in [*held, *held.values()] if isinstance(held, dict) else held:
                size += 4  # its quotes or brackets, and a comma
                if isinstance(item, str):
                    size += len(item)
                elif isinstance(item, int):
                    size += item.bit_length() // 3
                elif isinstance(item, _LISTS):
                    left.append(item)
            _fits(size)
    return value


def _sliced(value: Any) -> Any:
    """A part of a value that was not too large."""
    _tick()
    _counted(len(value) * (1 if isinstance(value, str) else _VALUE) if hasattr(value, "__len__") else 0)
    return value


@jinja2.pass_context  # so that it is not called while a template is compiled
def _text(context: object, value: object) -> str:
    """A value as it is written."""
    return str(_sized(str(value)))


def _strung(values: Iterable[object]) -> str:
    """The texts of values, one behind the other."""
    texts, size = [], 0
    for value in values:
        _tick()
        text = str(value)
        if not isinstance(value, str):
            _counted(len(text))
        size += len(text)
        _fits(size)
        texts.append(text)
    return str(_sized("".join(texts)))


def _dict(pairs: Any = (), /, **named: Any) -> dict[Any, Any]:
    """A dict, a pair after the other: those whose keys have one hash take the square of their number."""
    return dict(pairs if isinstance(pairs, dict) else _timed(pairs), **named)


def _sought(*texts: object) -> None:
    if any(isinstance(text, str) and len(text) > _SOUGHT for text in texts):
        raise TemplateError(
            f"the chat template uses a text of more than {_SOUGHT} characters where only short ones can be"
        )


def _trim(text: object, chars: str | None = None) -> str:
    _sought(chars)
    return str(text).strip(chars)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if not -_DIGITS <= precision <= _DIGITS:
        raise TemplateError(f"the chat template rounds to {precision} digits; -{_DIGITS} to {_DIGITS} are possible")
    return usual.do_round(value, precision, method)


@jinja2.pass_environment
def _sum(environment: Any, items: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    """Of numbers: a list is copied for each that is added to it."""
    if not isinstance(start, (int, float)):
        raise TemplateError("the chat template has a sum of what is no number, which is not supported")
    return usual.do_sum(environment, _timed(items), attribute, start)


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
