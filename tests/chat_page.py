"""Writes the session that docs/chat.md shows: typed into a terminal, with the default model on the kernels that every
machine has, so that it is the same everywhere."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path

from pty_terminal import CTRL_D, ENTER, terminal
from quickbrown.weights import hub

PAGE = Path(__file__).parents[1] / "docs" / "chat.md"
COMMAND = "python tests/chat_page.py"
MODEL = hub.catalogue()["smollm2-135m"]
_BLOCK = re.compile(r"^```console\n\$ (qb chat.*?)\n(.*?)```$", re.MULTILINE | re.DOTALL)
TYPED = [
    "Give me a list of three things to pack for a walk.",
    "/retry -t 0.8 --seed 1",
    "Write a Python function that adds two numbers. Use a code block.",
    "continue",
    "/undo",
    "/tokens",
    "/rtry",
]


def session(command: str) -> str:
    """What a terminal shows while this is typed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, MODEL.path.parent.relative_to(hub.home()))
        home.mkdir(parents=True)
        (home / MODEL.path.name).symlink_to(MODEL.path)
        _, *argv = shlex.split(command)
        with terminal(*argv, home=Path(folder), columns=100, lines=60, QB_ISA="scalar") as t:
            t.wait(r"0 / 8,192 tokens\n>$")
            for line in TYPED:
                t.type(line, ENTER)
                t.wait(re.escape(f"> {line}") + r"\n(?:(?!\n> ).)*\n\n[\d,]+ / 8,192 tokens\n>$")
            t.type(CTRL_D)
            assert t.code == 0
            return t.text.rstrip() + "\n"


def page() -> str:
    """The page of today."""
    text = PAGE.read_text("utf-8")
    [(command, _)] = _BLOCK.findall(text)
    shown = session(command)
    return _BLOCK.sub(lambda _: f"```console\n$ {command}\n{shown}```", text)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
