"""Which room may import which; docs/architecture.md draws the same picture."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "quickbrown"

# A name covers what is below it: `weights` allows weights.gguf. Every room may import itself, options and types.
ALLOWED = {
    "": {"llm", "async_llm", "hf", "streams", "generation.seeds"},
    "options": set(),
    "types": set(),
    "models": set(),
    "engine": set(),
    "generation": set(),
    "quant": set(),
    "weights": {"quant", "models.config", "models.families", "models.gguf"},
    "text": {"weights", "_native"},
    "backends": {"models.ops", "quant", "weights", "engine.runner", "engine.batch", "_native"},
    "streams": {"text", "engine"},
    "llm": {"text", "weights", "backends", "engine", "generation", "quant", "models", "streams"},
    "async_llm": {"llm", "streams"},
    "describe": {"llm", "text", "weights", "quant", "_native"},
    "hf": {"llm", "text", "weights", "backends", "engine", "generation", "quant", "models", "streams"},
    "bench": {"", "llm", "weights.kept", "backends.native"},
    "cli": {
        "llm", "streams", "describe", "hf", "bench", "generation.seeds", "weights.hub", "weights.kept",
        "backends.native",
    },
}  # fmt: skip
ALLOWED["cli"].add("")  # `from quickbrown import LLM`: the public names


def imports(text: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name, below quickbrown, of everything of quickbrown's that a module imports, functions included.

    `module` is dotted, below quickbrown; of a package it ends in `.__init__`.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["quickbrown", *module.split(".")][: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "quickbrown":
                yield node.lineno, rest


def resolve(name: str) -> str:
    """The longest part of a dotted name that is a module or a package: names inside a module are the module's."""
    parts = name.split(".") if name else []
    while parts and parts != ["_native"]:
        path = SOURCE.joinpath(*parts)
        if path.is_dir() or path.with_suffix(".py").is_file():
            break
        parts.pop()
    return ".".join(parts)


def allowed(module: str, target: str) -> bool:
    room, target_room = (name.split(".")[0].removesuffix("__init__") for name in (module, target))
    if target_room in (room, "options") or (target_room == "types" and room != "options"):
        return True
    return any(target == name or (name and target.startswith(name + ".")) for name in ALLOWED[room])


def arrows_up() -> list[str]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for line, name in imports(path.read_text(), module):
            target = resolve(name)
            if not allowed(module, target):
                found.append(f"{path.relative_to(SOURCE)}:{line} imports {target or 'the public names'}")
    return found


def test_no_arrow_goes_up() -> None:
    found = arrows_up()
    assert not found, "\n" + "\n".join(found)


def test_every_room_is_listed() -> None:
    rooms = {path.stem if path.suffix == ".py" else path.name for path in SOURCE.iterdir()}
    rooms = {room for room in rooms if not room.startswith("_") and "." not in room}
    assert rooms <= ALLOWED.keys()


@pytest.mark.parametrize(
    ("module", "text", "good"),
    [
        ("models.llama", "from quickbrown.models.ops import Ops", True),
        ("models.llama", "from quickbrown.types import Event", True),
        ("models.llama", "def f():\n    from quickbrown.quant import weight", False),
        ("models.llama", "import quickbrown.engine.batch", False),
        ("engine.engine", "from quickbrown import generation", False),
        ("engine.engine", "from ..generation import decoders", False),
        ("engine.engine", "from .batch import Batch", True),
        ("backends.native.runner", "from quickbrown.models.ops import Ops", True),
        ("backends.native.runner", "from quickbrown.models import llama", False),
        ("backends.native.runner", "from quickbrown import _native", True),
        ("backends.native.__init__", "from ..reference import x", True),
        ("cli.doctor", "from quickbrown.backends import native", True),
        ("cli.doctor", "from quickbrown.backends import reference", False),
        ("cli.generate", "from quickbrown import LLM", True),
        ("cli.generate", "from quickbrown.engine.engine import Engine", False),
        ("__init__", "from quickbrown.llm import LLM", True),
        ("__init__", "from quickbrown.engine.engine import Engine", False),
        ("weights.gguf", "import numpy", True),
    ],
)
def test_the_check_sees_what_it_should(module: str, text: str, good: bool) -> None:
    assert all(allowed(module, resolve(name)) for _, name in imports(text, module)) == good
