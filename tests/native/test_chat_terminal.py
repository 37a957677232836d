"""qb chat in a terminal: what is typed, what is shown, and Ctrl-C at every moment."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_writer import write_tiny_llama
from pty_terminal import CTRL_C, CTRL_D, CTRL_J, ENTER, ESCAPE, TAB, UP, terminal
from stand_in import StandIn, event, stand_in

PROMPT = r"tokens\n>$"  # is asked for a message


@pytest.fixture
def there() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny.gguf", max_position_embeddings=512))


def test_an_answer_is_shown_while_it_comes(there: StandIn, tmp_path: Path) -> None:
    gates = [threading.Event() for _ in range(3)]
    code = ["```python\ndef f", gates[1], "():\n    ", gates[2], "pass\n"]
    there.scripts = [["# A fox\n\nIs **qui", gates[0], "ck**.\n\n", *code]]
    with terminal("chat", "--url", there.url, home=tmp_path) as t:
        t.wait(r"^/help lists .*\n\n0 / 8,192 tokens\n>$")
        t.type("What?", ENTER)
        t.wait(r"> What\?\nA fox\n\nIs \*\*qui$")
        gates[0].set()
        t.wait(r"A fox\n\nIs quick\.\n\ndef f$")
        gates[1].set()
        t.wait(r"\n\ndef f\(\):$")
        gates[2].set()
        t.wait(r"\ndef f\(\):\n    pass\n\n12 / 8,192 tokens\n>$")
        assert re.search(rb"\x1b\[94[;0-9]*mdef", t.sent)  # highlighted
        t.type(CTRL_D)
        assert t.code == 0
    assert there.asked[0]["messages"] == [{"role": "user", "content": "What?"}]


def test_ctrl_c_at_every_moment(there: StandIn, tmp_path: Path) -> None:
    never = threading.Event()
    there.scripts = [[never], ["It is", never, "never"], ["more"]]
    with terminal("chat", "--url", there.url, home=tmp_path) as t:
        t.wait(PROMPT)
        t.type("half a line", CTRL_C)
        t.wait(PROMPT)
        t.type("one", ENTER)
        t.wait(r"> one\n\.\.\.$")
        assert there.came.acquire(timeout=60)
        t.type(CTRL_C)  # before the first token
        t.wait(r"> one\n\(stopped\)\n\n0 / 8,192 tokens\n>$")
        t.type("two", ENTER)
        t.wait(r"> two\nIt is$")
        t.type(CTRL_C)  # in the middle
        t.wait(r"> two\nIt is\n\(stopped; /continue goes on\)\n\nfox\n>$")
        t.type("three", ENTER)
        t.wait(r"more\n\n12 / 8,192 tokens\n>$")
        t.type(CTRL_C)  # at an empty prompt
        assert t.code == 0
        assert "Traceback" not in t.text
    contents = [message["content"] for message in there.asked[-1]["messages"]]
    assert contents == ["two", "It is", "three"]


SLOW = (
    "import time, quickbrown\n"
    "class LLM:\n"
    "    def __init__(self, *args, **settings):\n"
    "        for _ in range(6000): time.sleep(0.01)\n"
    "vars(quickbrown)['LLM'] = LLM\n"
)
DAMAGED = (
    "import quickbrown\n"
    "def LLM(*args, **settings): raise ValueError('the file is damaged')\n"
    "vars(quickbrown)['LLM'] = LLM\n"
)


def test_ctrl_c_while_the_model_is_loaded(model: str, tmp_path: Path) -> None:
    """The prompt is there before the model. Leaving does not wait for it."""
    with terminal("chat", "-m", model, home=tmp_path, before=SLOW, columns=200) as t:
        t.wait(r"loading \S*tiny.gguf \.\.\.\n>$")
        t.type("one", ENTER)
        t.wait(r"> one\n\.\.\.$")
        t.type(CTRL_C)
        t.wait(r"\(stopped\)\n\nloading \S*tiny.gguf \.\.\.\n>$")
        t.type(CTRL_C)
        assert t.code == 0
        assert "Traceback" not in t.text


@pytest.mark.parametrize("typed", ["", "half a line"])
def test_a_model_that_cannot_be_loaded(typed: str, model: str, tmp_path: Path) -> None:
    with terminal("chat", "-m", model, home=tmp_path, before=DAMAGED) as t:
        t.type(typed)
        assert t.code == 1
        assert t.text.endswith("qb: the file is damaged")


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with terminal("chat", "--url", "http://127.0.0.1:9/v1", home=tmp_path, columns=200) as t:
        assert t.code == 1
        assert "qb: http://127.0.0.1:9/v1 cannot be reached (Connection refused)" in t.text


def test_lines_pastes_and_what_is_typed_ahead(there: StandIn, tmp_path: Path) -> None:
    gate = threading.Event()
    there.scripts = [["a"], ["b"], ["c", gate], ["d"]]
    pasted = "\n".join(f"line {i} of /help" for i in range(1000))
    with terminal("chat", "--url", there.url, home=tmp_path) as t:
        t.wait(PROMPT)
        t.type("one\\", ENTER, "two", ESCAPE, ENTER, "three", CTRL_J, "four \\ five", ENTER)
        t.wait(r"> one\n  two\n  three\n  four \\ five\na\n\n.*" + PROMPT)
        t.paste(pasted)
        t.wait(r"line 999 of /help$")
        t.type(ENTER)
        t.wait(r"line 999 of /help\nb\n\n.*" + PROMPT)
        t.type("go", ENTER)
        t.wait(r"> go\nc$")
        t.type("next", ENTER)  # while it answers: not shown in the middle of that
        gate.set()
        t.wait(r"> go\nc\n\n12 / 8,192 tokens\n> next\nd\n\n.*" + PROMPT)
        t.type(CTRL_D)
        assert t.code == 0
    contents = [body["messages"][-1]["content"] for body in there.asked]
    assert contents == ["one\ntwo\nthree\nfour \\ five", pasted, "go", "next"]


def test_history_and_completion(there: StandIn, tmp_path: Path) -> None:
    with terminal("chat", "--url", there.url, home=tmp_path) as t:
        t.wait(PROMPT)
        t.type("first\\", ENTER, "line", ENTER)
        t.wait(r"yes\n\n.*" + PROMPT)
        t.type(CTRL_D)
        assert t.code == 0
    with terminal("chat", "--url", there.url, home=tmp_path) as t:
        t.wait(PROMPT)
        t.type(UP)
        t.wait(r"> first\n  line$")
        t.type(CTRL_C, "/unk")
        t.wait(r"> /unk$")
        t.type(CTRL_C, "/und")
        t.wait(r"/undo +take the last message")
        t.type(TAB)
        t.wait(r"> /undo")
        t.type(ENTER)
        t.wait(r"there is nothing to take back\n\n.*" + PROMPT)
        t.type("/set tempera")
        t.wait(r"> /set tempera\n +temperature")
        t.type(TAB)
        t.wait(r"> /set temperature")
        t.type(" 0.5", ENTER)
        t.wait(r"temperature = 0\.5\n\n.*" + PROMPT)
        t.type("/exit", ENTER)
        assert t.code == 0


def test_resize(there: StandIn, tmp_path: Path) -> None:
    gates = [threading.Event() for _ in range(2)]
    words = "many words that fill more than one line of a terminal that is not too wide to be filled by them"
    there.scripts = [[f"{words}\n\n", gates[0], words, gates[1], f" {words}\n\nend"]]
    with terminal("chat", "--url", there.url, home=tmp_path, columns=60) as t:
        t.wait(PROMPT)
        t.type("one", ENTER)
        t.wait(r"filled by them$")
        t.resize(30, 24)
        gates[0].set()
        t.wait(r"many words that fill more\nthan one line of a terminal")
        t.resize(100, 24)
        gates[1].set()
        t.wait(r"many words that fill more than one line of a terminal that is not too wide to .*end\n\n.*" + PROMPT)
        t.type("some ")
        t.resize(40, 12)
        t.type("more", ENTER)
        t.wait(r"some more\nyes\n\n.*" + PROMPT)
        t.type(CTRL_D)
        assert t.code == 0
    assert there.asked[-1]["messages"][-1]["content"] == "some more"


def test_nothing_of_others_reaches_the_terminal(there: StandIn, tmp_path: Path) -> None:
    """A title, a cleared screen, a clipboard and a link, from everywhere that a server or a file can say something."""
    evil = "\x1b]0;evil\x07\x1b[2J\x9b2J\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://evil\x07\u202e"
    there.models = 200, {"data": [{"id": f"m{evil}"}]}
    thought = event({"reasoning_content": f"hm{evil}"})
    there.scripts = [[thought, f"a{evil}\n\n```{evil}\nb{evil}\n```\n\n[x{evil}](http://x{evil}) &#27;]0;evil&#7;"]]
    saved = {"format": "quickbrown.chat", "version": 1, "model": f"m{evil}", "options": {}}
    saved["messages"] = [{"role": "user", "content": f"q{evil}"}]
    (tmp_path / "c.json").write_text(json.dumps(saved))
    (tmp_path / "bad.json").write_text(json.dumps(saved | {f"x{evil}": 1}))
    with terminal("chat", "--url", there.url, home=tmp_path, columns=100, lines=50) as t:
        t.wait(r"\n>$")
        t.type("one", ENTER)
        t.wait(r"\n>$")
        t.wait(r"> one\n.*\n>$")
        for line in ("show reasoning", "show", "model", "load bad.json", "load c.json", "show conversation", "edit"):
            t.type(f"/{line}", ENTER)
            t.wait(re.escape(f"> /{line}") + r"\n.*\n> ?(q.*)?$")
        t.type(CTRL_C)
        there.refusal = 400, {"error": {"message": f"no{evil}"}}
        t.type("two", ENTER)
        t.wait(r"refuses \(400\):\s+no.*\n>$")
        t.type(CTRL_D)
        assert t.code == 0
    for sequence in (b"\x1b]0;", b"\x1b[2J", b"\xc2\x9b", b"\x1b]52", b"\x1b]8", b"\x07", "\u202e".encode()):
        assert sequence not in t.sent
    assert t.sent.count(b"\\x1b]0;evil\\x07") > 5


@pytest.mark.parametrize(
    ("env", "columns"),
    [({"NO_COLOR": "1"}, 80), ({"PYTHONIOENCODING": "ascii"}, 80), ({"TERM": "dumb"}, 80), ({}, 18)],
    ids=["NO_COLOR", "ASCII", "dumb", "narrow"],
)
def test_poor_terminals(env: dict[str, str], columns: int, there: StandIn, tmp_path: Path) -> None:
    there.scripts = [["- one \u2026 \U0001f98a and *more* words\n\n```python\ndef f(): 'a long line'\n```\n"]]
    with terminal("chat", "--url", there.url, home=tmp_path, columns=columns, **env) as t:
        t.wait(r">\s*$")
        t.type("One", ENTER)
        t.wait(r"> One\n.*one .*def f.*\n>\s*$")
        t.type("/exit", ENTER)
        assert t.code == 0
        assert "Traceback" not in t.text
        answer = t.sent.partition(b"One")[2]
        if "NO_COLOR" in env:
            assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|9[0-7])m", answer)
        if "PYTHONIOENCODING" in env:
            assert " * one ? ? and more words" in t.text
        if "TERM" in env:
            assert "- one \u2026 \U0001f98a" in t.text


def test_thoughts_are_folded(there: StandIn, tmp_path: Path) -> None:
    gate = threading.Event()
    there.scripts = [["<think>Hm, ", gate, "so.</think>\n\nYes."]]
    with terminal("chat", "--url", there.url, home=tmp_path) as t:
        t.wait(PROMPT)
        t.type("One", ENTER)
        t.wait(r"> One\nthinking \.\.\. 4 characters$")
        gate.set()
        t.wait(r"> One\n\(thought for 7 characters; /show reasoning\)\nYes\.\n\n.*" + PROMPT)
        t.type("/show reasoning", ENTER)
        t.wait(r"\nHm, so\.\n\n.*" + PROMPT)
        t.type(CTRL_D)
        assert t.code == 0


def test_every_command(model: str, tmp_path: Path) -> None:
    """With a model that is loaded here: of random weights, whose words do not matter."""
    with terminal("chat", "-m", model, "--seed", "1", "--max-new-tokens", "8", home=tmp_path, columns=100) as t:

        def do(line: str, shows: str) -> None:
            t.type(line, ENTER)
            t.wait(re.escape(f"> {line}") + rf"\n(?:(?!\n> ).)*{shows}(?:(?!\n> ).)*tokens\n> ?$")

        t.wait(r"^.*0 / 512 tokens\n>$")
        do("/help", r"/retry \[-t T \.\.\.\]")
        do("/system You are a fox.", "told that")
        do("hello", r"ended after 8 tokens, max_new_tokens; /continue goes on")
        used = int(t.wait(r"\d+ / 512 tokens\n>$").split()[0])
        do("/continue", "ended after 8 tokens")
        assert int(t.wait(r"\d+ / 512 tokens\n>$").split()[0]) > used
        do("/retry -t 2 --seed 5", "ended after 8 tokens")
        do("/set temperature 0.9", r"temperature = 0\.9")
        do("/show", r"temperature +0\.9\n")
        do("/show conversation", "user: hello")
        do("/tokens", r" \d+  user: hello\n +\d+  assistant:")
        do("/branch other", "in branch other")
        do("/branch", r"\* other")
        do("/save c.json", "saved in")
        do("/undo", r"taken back: hello")
        do("/clear", "forgotten")
        do("/load c.json", "with 3 messages")
        t.type("/edit", ENTER)
        t.wait(r"> hello$")
        t.type(" again", ENTER)
        t.wait(r"> hello again\n.*ended after 8.*" + PROMPT)
        do("/undo", "taken back: hello again")
        do(f"/model {model}", "answers from now on")
        t.type("x" * 600, ENTER)
        t.wait(r"would have 6\d\d tokens and the context holds 512; shorten the message, take\nexchanges back")
        t.wait(PROMPT)
        do("/contniue", r"did you mean /continue\?")
        t.type("/exit", ENTER)
        assert t.code == 0
    assert [message["role"] for message in json.loads((tmp_path / "c.json").read_text())["messages"]] == [
        "system",
        "user",
        "assistant",
    ]
