"""docs/chat.md shows what is there."""

from __future__ import annotations

import re

import pytest

import chat_page
from quickbrown.cli.chat.actions import ACTIONS
from quickbrown.cli.chat.conversation import load
from quickbrown.weights import hub


@pytest.mark.skipif(
    not hub.listing()[0].present, reason="the default model is not here; `qb pull smollm2-135m` fetches it"
)
def test_the_session_is_current() -> None:
    now, shown = chat_page.page(), chat_page.PAGE.read_text("utf-8")
    assert now == shown, f"run: {chat_page.COMMAND}"


def test_every_command_is_there() -> None:
    text = chat_page.PAGE.read_text("utf-8")
    table = text[text.index("## Commands") : text.index("## Saved conversations")]
    firsts = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    assert {name for first in firsts for name in re.findall(r"`/(\w+)", first)} == ACTIONS.keys()
    assert set(re.findall(r"`/(\w+)", table)) <= ACTIONS.keys()


def test_the_file_shown_can_be_loaded(tmp_path) -> None:
    text = chat_page.PAGE.read_text("utf-8")
    path = tmp_path / "c.json"
    path.write_text(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    assert len(load(path).messages) == 3
