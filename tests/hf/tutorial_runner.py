"""Runs the code of tutorial.md, line for line as a reader would type it, with only its imports turned to quickbrown."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("tutorial.md")
IMPORTS = {
    "from transformers import": "from quickbrown import",
    "from accelerate.test_utils.testing import get_backend": "from quickbrown import get_backend",
}


@dataclass(frozen=True)
class Statement:
    """One statement of the tutorial: what was typed, what the page shows below it, and what came of it here.

    value    what it evaluates to, if it is an expression
    printed  what it wrote to standard output
    warned   the kinds of the warnings it gave
    names    all that was defined once it had run
    """

    source: str
    shown: str
    value: Any
    printed: str
    warned: list[type[Warning]]
    names: dict[str, Any]


def statements() -> list[tuple[str, str]]:
    """Each statement of the page, and what the page shows below it. Comments that stand alone are left out."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    parser = doctest.DocTestParser()
    return [(example.source, example.want) for block in blocks for example in parser.get_examples(block)]


def run(tensors: str = "pt", models: Mapping[str, str] | None = None) -> list[Statement]:
    """Run them all in one namespace.

    tensors  what stands in `return_tensors="pt"`
    models   other names for the models that the page loads
    """
    names: dict[str, Any] = {"__name__": "tutorial"}
    done = []
    for source, shown in statements():
        code = rewritten(source, tensors, models or {})
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            value = execute(code, names)
        kinds = [warning.category for warning in warned]
        done.append(Statement(code, shown, value, printed.getvalue(), kinds, dict(names)))
    return done


def rewritten(source: str, tensors: str, models: Mapping[str, str]) -> str:
    for theirs, ours in IMPORTS.items():
        source = re.sub(rf"^{re.escape(theirs)}", ours, source)
    source = source.replace('return_tensors="pt"', f'return_tensors="{tensors}"')
    for theirs, ours in models.items():
        source = source.replace(f'"{theirs}"', f'"{ours}"')
    return source


def execute(code: str, names: dict[str, Any]) -> Any:
    """Run some code. Returns the value of the expression that it ends with, if it does, else None."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<statement>", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "<statement>", "eval"), names)
