"""A conversation: what lines do, what is saved, and what a terminal is sent. Without a model and without a terminal."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from quickbrown.cli import chat, main
from quickbrown.cli.chat import conversation, editor, markdown, screen
from quickbrown.cli.chat.actions import ACTIONS, Leave
from quickbrown.cli.chat.conversation import Message
from quickbrown.cli.chat.display import Plain
from quickbrown.cli.chat.loader import Loader, NotLoaded
from quickbrown.cli.chat.reasoning import KINDS, Marks, Splitter, opened
from quickbrown.cli.chat.session import Session
from quickbrown.cli.chat.source import Kind, Outcome, Piece
from quickbrown.types import SamplingParams


class FakeSource:
    """Answers with the next script, on a thread: texts, pieces, an exception to raise before, None for a Ctrl-C."""

    def __init__(self, name: str = "fox", *scripts: Sequence[Any]) -> None:
        self.name = name
        self.context = 8192
        self.scripts = list(scripts)
        self.asked: list[tuple[list[Message], dict[str, Any], bool]] = []
        self.outcome = Outcome("stop", used=40, written=2)
        self.closed = 0

    def load(self) -> None:
        pass

    def check(self, options: dict[str, Any]) -> None:
        SamplingParams.from_options(dict(options))

    def answer(self, messages: Sequence[Message], options: dict[str, Any], goes_on: bool, out: Any) -> Any:
        self.asked.append((list(messages), options, goes_on))
        script = self.scripts.pop(0) if self.scripts else ["yes"]
        stopped = False
        for step in script:
            if isinstance(step, Exception):
                raise step
            if step is None:
                stopped = True
                signal.raise_signal(signal.SIGINT)
            else:
                out(step if isinstance(step, Piece) else Piece(Kind.SAID, step))
        if not stopped:
            out(Piece(Kind.END))
        outcome = Outcome("cancelled") if stopped else self.outcome

        class Answer:
            def close(answer) -> None:
                self.closed += 1

            def outcome(answer) -> Outcome:
                return outcome

        return Answer()

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages)

    def length(self, text: str) -> int:
        return len(text)

    def names(self) -> list[str]:
        return ["fox", "dog"]

    def other(self, name: str) -> FakeSource:
        if name not in self.names():
            raise ValueError(f"no model {name}")
        return FakeSource(name)

    def close(self) -> None:
        self.name += " (closed)"


def session_of(*scripts: Sequence[Any], system: str | None = None, **options: Any) -> Any:
    return Session(Loader.of(FakeSource("fox", *scripts)), Plain(), system, options)


def told(session: Any) -> list[str]:
    return [message.content for message in session.conversation.messages]


THINK = Marks("<think>", "</think>")


class TestLines:
    def test_the_conversation_grows(self) -> None:
        session = session_of(["It ", "is."], system="Be brief.", seed=1)
        session.take("One\ntwo")
        session.take("   ")
        session.take("three")
        (first, options, _), (second, _, _) = session.source.asked
        assert first == [Message("system", "Be brief."), Message("user", "One\ntwo")]
        assert second == [*first, Message("assistant", "It is."), Message("user", "three")]
        assert options == {"seed": 1}
        assert session.source.closed == 2

    def test_what_only_looks_like_a_command_is_a_message(self) -> None:
        session = session_of()
        for line in ("/etc/passwd, what is it?", " /help", "continue", "1/2"):
            session.take(line)
        assert told(session)[::2] == ["/etc/passwd, what is it?", " /help", "1/2"]
        assert [goes_on for _, _, goes_on in session.source.asked] == [False, False, True, False]

    @pytest.mark.parametrize(("line", "near"), [("/rtry", "/retry"), ("/hlep", "/help"), ("/xyzzy", "/help lists")])
    def test_a_slip_is_corrected(self, line: str, near: str) -> None:
        session = session_of()
        with pytest.raises(ValueError, match=f"there is no {line}; .*{near}"):
            session.take(line)
        assert session.source.asked == []

    def test_ctrl_c_keeps_what_was_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        """And the next answer is not disturbed by it."""
        before = signal.getsignal(signal.SIGINT)
        session = session_of(["It", " is", None, "never"], ["more"])
        session.take("What?")
        session.take("Go on.")
        assert told(session) == ["What?", "It is", "Go on.", "more"]
        assert capsys.readouterr() == ("It is\nmore\n", "(stopped; /continue goes on)\n")
        assert signal.getsignal(signal.SIGINT) is before

    def test_ctrl_c_before_the_first_word_takes_the_question_back(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of([None])
        session.take("What?")
        assert told(session) == []
        assert capsys.readouterr() == ("", "(stopped)\n")

    def test_ctrl_c_while_the_model_is_loaded(self, capsys: pytest.CaptureFixture[str]) -> None:
        loader = Loader(FakeSource())  # which is never started
        session = Session(loader, Plain(), None, {})
        timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
        timer.start()
        session.take("What?")
        timer.join()
        assert told(session) == []
        assert capsys.readouterr().err == "(stopped)\n"
        assert session.status() == "loading fox ..."

    def test_a_failure_keeps_what_came_and_is_said(self) -> None:
        session = session_of(["It is"])
        session.source.outcome = Outcome("error", error="the model failed")
        with pytest.raises(RuntimeError, match="the model failed"):
            session.take("What?")
        assert told(session) == ["What?", "It is"]

    def test_a_message_that_is_refused_changes_nothing(self) -> None:
        session = session_of(["a"], [ValueError("too long")])
        session.take("one")
        with pytest.raises(ValueError, match="too long"):
            session.take("two")
        assert told(session) == ["one", "a"]

    @pytest.mark.parametrize(
        ("outcome", "note"),
        [
            (Outcome("stop", 40, 2), ""),
            (Outcome("length", 40, 2), "(ended after 2 tokens, max_new_tokens; /continue goes on)\n"),
            (Outcome("time", 40, 2), "(ended after max_time; /continue goes on)\n"),
            (
                Outcome("length", 8192, 2),
                "(the context of 8,192 tokens is full; /undo takes exchanges back, /clear begins anew)\n",
            ),
        ],
    )
    def test_how_an_answer_ended(self, outcome: Outcome, note: str, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of(["a"])
        session.source.outcome = outcome
        session.take("one")
        assert capsys.readouterr() == ("a\n", note)
        assert session.status() == f"{outcome.used:,} / 8,192 tokens"


class TestActions:
    def test_system(self) -> None:
        session = session_of()
        session.take("one")
        session.take("/system Be brief.\nAnd kind.")
        session.take("two")
        assert session.source.asked[-1][0][0] == Message("system", "Be brief.\nAnd kind.")
        session.take("/system")
        assert told(session) == ["one", "yes", "two", "yes"]

    def test_set(self) -> None:
        session = session_of()
        for line in ("/set temperature 0.7", "/set top-k 5", "/set ignore_eos", "/set stop  a -b ", "/set seed 3"):
            session.take(line)
        session.take("/set seed default")
        assert session.conversation.options == {"temperature": 0.7, "top_k": 5, "ignore_eos": True, "stop": ["a -b"]}
        session.take("hello")
        assert session.source.asked[-1][1] == session.conversation.options
        session.take("/set ignore_eos default")
        assert "ignore_eos" not in session.conversation.options

    @pytest.mark.parametrize(
        ("line", "sentence"),
        [
            ("/set temprature 1", "temperature"),
            ("/set temprature default", "temperature"),
            ("/set temperature", "temperature"),
            ("/set temperature hot", "give a number, not 'hot'"),
            ("/set temperature -1", "from 0 to"),
            ("/set ignore_eos off", "takes no value"),
            ("/retry", "no message to answer again"),
            ("/edit", "no message to edit"),
            ("/undo", "nothing to take back"),
            ("/continue", "no answer to go on with"),
            ("/save", "takes the name of a file"),
            ("/load nowhere.json", "there is no file"),
            ("/show reasoning", "has no reasoning"),
            ("/show nothing", "not 'nothing'"),
            ("/model cow", "no model cow"),
            ("/help nothing", "there is no /nothing"),
        ],
    )
    def test_what_cannot_be_done_is_said(self, line: str, sentence: str) -> None:
        session = session_of()
        with pytest.raises((ValueError, TypeError), match=sentence):
            session.take(line)
        assert (told(session), session.conversation.options, session.source.asked) == ([], {}, [])

    def test_retry(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of(["a"], ["b"], ["b"], [None])
        session.take("one")
        session.take("/retry -t 0.8 --seed 3")
        assert session.source.asked[-1] == ([Message("user", "one")], {"temperature": 0.8, "seed": 3}, False)
        assert session.conversation.options == {}
        assert told(session) == ["one", "b"]
        session.take("/retry")
        assert "(the same again: the temperature is 0; /retry -t 0.8 draws another)" in capsys.readouterr().err
        session.take("/retry")  # stopped before it said anything: the answer that was stays
        assert told(session) == ["one", "b"]
        with pytest.raises(ValueError, match="invalid float"):
            session.take("/retry -t hot")

    def test_retry_after_a_conversation_that_ends_with_a_question(self, tmp_path: Path) -> None:
        session = session_of(["a"])
        session.conversation.messages = [Message("user", "one")]
        session.take("/retry")
        assert told(session) == ["one", "a"]

    def test_continue(self) -> None:
        session = session_of(["1. The"], [" fox"], [" runs"], [])
        session.take("one")
        session.take("/continue")
        assert session.source.asked[-1][0][-1] == Message("assistant", "1. The")
        assert session.source.asked[-1][2]
        session.take("Continue ")
        assert told(session) == ["one", "1. The fox runs"]
        session.take("/continue")
        assert told(session) == ["one", "1. The fox runs"]

    def test_continue_a_thought(self) -> None:
        session = session_of([Piece(Kind.THOUGHT, "hm")], [Piece(Kind.THOUGHT, "m"), Piece(Kind.SAID, "yes")])
        session.take("one")
        assert session.conversation.last == Message("assistant", "", "hm")
        session.take("/continue")
        assert session.conversation.last == Message("assistant", "yes", "hmm")

    def test_edit_takes_the_place_of_the_last_message(self) -> None:
        session = session_of(["a"], ["b"], ["c"], [None])
        session.take("one")
        session.take("two")
        session.take("/edit")
        assert session.draft == "two"
        session.take("two!")
        assert told(session) == ["one", "a", "two!", "c"]
        session.take("/edit")
        session.take("")  # never mind
        session.take("/edit")
        session.take("never")  # stopped at once
        assert told(session) == ["one", "a", "two!", "c"]
        session.take("three")
        assert told(session) == ["one", "a", "two!", "c", "three", "yes"]

    def test_undo(self) -> None:
        session = session_of(system="S")
        session.take("one")
        session.take("two")
        session.take("/undo")
        assert told(session) == ["S", "one", "yes"]
        assert session.used == 7
        session.take("/undo")
        assert told(session) == ["S"]

    def test_branches(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of()
        session.take("one")
        session.take("/branch other")
        session.take("two")
        session.take("/branch main")
        assert told(session) == ["one", "yes"]
        capsys.readouterr()
        session.take("/branch")
        assert capsys.readouterr().err == "* main  2 messages\n  other  4 messages\n"
        session.take("/branch other")
        assert told(session) == ["one", "yes", "two", "yes"]

    def test_clear_forgets_all_but_the_system_message(self) -> None:
        session = session_of(system="S", seed=1)
        session.take("one")
        session.take("/clear")
        assert told(session) == ["S"]
        assert session.conversation.options == {"seed": 1}

    def test_model(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of()
        session.take("one")
        before = session.source
        session.take("/model")
        assert capsys.readouterr().err == "fox\nothers: dog\n"
        session.take("/model dog")
        assert (session.source.name, before.name) == ("dog", "fox (closed)")
        session.take("two")
        assert [message.content for message in session.source.asked[0][0]] == ["one", "yes", "two"]

    def test_tokens(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of()
        session.take("one")
        capsys.readouterr()
        session.take("/tokens")
        assert capsys.readouterr().err == (
            "       3  user: one\n       3  assistant: yes\n"
            "      40  in all, with what the chat template writes around them\n"
        )

    def test_show(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of([Piece(Kind.THOUGHT, "hm\x1b[2J"), "a"], system="S", seed=1)
        session.take("one")
        assert capsys.readouterr() == ("a\n", "(thought for 6 characters; /show reasoning)\n")
        session.take("/show reasoning")
        assert capsys.readouterr().err == "hm\\x1b[2J\n"
        session.take("/show conversation")
        assert capsys.readouterr().err == "system: S\n\nuser: one\n\nassistant: a\n\n"
        session.take("/show")
        shown = capsys.readouterr().err
        assert re.search(r"^seed +1$", shown, re.MULTILINE)
        assert re.search(r"^temperature +0.0 \(default\)$", shown, re.MULTILINE)

    def test_help_is_of_all(self, capsys: pytest.CaptureFixture[str]) -> None:
        session = session_of()
        session.take("/help")
        shown = capsys.readouterr().err
        assert all(f"/{name}" in shown and action.help in shown for name, action in ACTIONS.items())
        session.take("/help /retry")
        assert capsys.readouterr().err == f"/retry [-t T ...]  {ACTIONS['retry'].help}\n"

    def test_exit(self) -> None:
        with pytest.raises(Leave):
            session_of().take("/exit")


class TestFiles:
    def test_a_conversation_comes_back(self, tmp_path: Path) -> None:
        path = tmp_path / "c.json"
        session = session_of(
            [Piece(Kind.THOUGHT, "hm"), "ja \u00e4\U0001f98a"], system="S", temperature=0.5, stop=["x"]
        )
        session.take("one\ntwo")
        session.take(f"/save {path}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text("utf-8")) == {
            "format": "quickbrown.chat",
            "version": 1,
            "model": "fox",
            "options": {"temperature": 0.5, "stop": ["x"]},
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "one\ntwo"},
                {"role": "assistant", "content": "ja \u00e4\U0001f98a", "reasoning": "hm"},
            ],
        }
        other = session_of()
        other.take(f"/load {path}")
        assert other.conversation == session.conversation

    def test_only_own_files_are_written_again(self, tmp_path: Path) -> None:
        path = tmp_path / "c.json"
        path.write_text("precious")
        session = session_of()
        session.take("one")
        with pytest.raises(OSError, match="is there already"):
            session.take(f"/save {path}")
        assert path.read_text() == "precious"
        path.unlink()
        session.take(f"/save {path}")
        session.take("two")
        session.take(f"/save {path}")
        assert len(json.loads(path.read_text())["messages"]) == 4
        assert [file.name for file in tmp_path.iterdir()] == ["c.json"]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            session_of().take(f"/save {tmp_path / 'no' / 'c.json'}")

    GOOD: dict[str, Any] = {  # noqa: RUF012
        "format": "quickbrown.chat",
        "version": 1,
        "model": None,
        "options": {},
        "messages": [{"role": "user", "content": "a"}],
    }

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[" * 200_000, "not JSON"),
            (b"[]", "does not say"),
            ({"format": "other"}, "does not say"),
            ({"version": 2}, "version 2 of the format"),
            ({"version": True}, "version True of the format"),
            ({"tools": []}, "'tools', which is not known"),
            ({"model": 1}, "the model in .* must be a text"),
            ({"options": []}, "options in .* must be an object"),
            ({"options": {"temperature": -1}}, "from 0 to 1,000,000"),
            ({"options": {"logprobs": True}}, "'logprobs', which is no option"),
            ({"options": {"exec": "x"}}, "'exec', which is no option"),
            ({"messages": {}}, "must be a list"),
            ({"messages": ["a"]}, "message 0 in .* must be an object"),
            ({"messages": [{"role": "root", "content": "a"}]}, "role of message 0 in .* is 'root'"),
            ({"messages": [{"role": ["user"], "content": "a"}]}, "role of message 0"),
            ({"messages": [{"role": "user", "content": None}]}, "content of message 0 in .* must be a text"),
            ({"messages": [{"role": "user", "content": "\ud800"}]}, "content of message 0 in .* must be a text"),
            ({"messages": [{"role": "user", "content": "a", "reasoning": "b"}]}, "reasoning of message 0"),
            ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "'name', which is not known"),
            ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "only the first"),
        ],
    )
    def test_a_file_is_not_trusted(self, change: Any, sentence: str, tmp_path: Path) -> None:
        path = tmp_path / "c.json"
        path.write_bytes(change if isinstance(change, bytes) else json.dumps(self.GOOD | change).encode())
        session = session_of()
        session.take("one")
        with pytest.raises(ValueError, match=sentence):
            session.take(f"/load {path}")
        assert told(session) == ["one", "yes"]
        assert session.conversation.options == {}

    def test_a_good_file_is_taken(self, tmp_path: Path) -> None:
        """The one that the others are made of."""
        path = tmp_path / "c.json"
        path.write_text(json.dumps(self.GOOD | {"model": "dog"}))
        session = session_of()
        session.take(f"/load {path}")
        assert told(session) == ["a"]
        assert session.source.name == "fox"

    def test_a_large_file_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(conversation, "LARGEST", 50)
        path = tmp_path / "c.json"
        path.write_text(json.dumps(self.GOOD))
        with pytest.raises(ValueError, match="more than 50 bytes"):
            session_of().take(f"/load {path}")
        with pytest.raises(ValueError, match="is no file"):
            session_of().take(f"/load {tmp_path}")

    def test_history_is_for_its_owner(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QB_HOME", str(tmp_path / "home"))
        kept = editor.history()
        kept.append_string("one\ntwo")
        [path] = (tmp_path / "home").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(editor.history().load_history_strings()) == ["one\ntwo"]
        monkeypatch.setenv("QB_HOME", str(path / "below a file"))
        editor.history().append_string("kept in memory")


class TestThoughts:
    @pytest.mark.parametrize("marks", [marks for marks in KINDS if marks.close], ids=lambda marks: marks.open)
    def test_however_the_text_is_divided(self, marks: Marks) -> None:
        draw = random.Random(0)
        text = f"\n{marks.open}a {marks.close[:-1]} b{marks.close}\n\nc {marks.open}d{marks.close}"
        for size in (1, 2, 3, 7, 50, 0):
            splitter, found = Splitter(), {Kind.THOUGHT: "", Kind.SAID: ""}
            rest = text
            while rest:
                n = size or draw.randint(1, 9)
                for piece in splitter.feed(rest[:n]):
                    found[piece.kind] += piece.text
                rest = rest[n:]
            for piece in splitter.finish():
                found[piece.kind] += piece.text
            assert found[Kind.THOUGHT] == f"a {marks.close[:-1]} b"
            assert found[Kind.SAID] == f"\n\nc {marks.open}d{marks.close}"

    @pytest.mark.parametrize("text", ["hello", " <b>", "<thin", "", "<", "a <think>b</think>"])
    def test_words_alone(self, text: str) -> None:
        splitter = Splitter()
        found = [piece for letter in text for piece in splitter.feed(letter)] + list(splitter.finish())
        assert "".join(piece.text for piece in found) == text
        assert {piece.kind for piece in found} <= {Kind.SAID}

    def test_a_thought_that_the_prompt_began(self) -> None:
        marks = opened("<|im_start|>assistant\n<think>\n")
        assert marks == THINK
        assert list(Splitter(marks).feed("a</think>b")) == [Piece(Kind.THOUGHT, "a"), Piece(Kind.SAID, "b")]
        assert opened("<|im_start|>assistant\n") is None

    def test_an_unfinished_thought(self) -> None:
        splitter = Splitter()
        found = [*splitter.feed("<think>a</th"), *splitter.finish()]
        assert found == [Piece(Kind.THOUGHT, "a"), Piece(Kind.THOUGHT, "</th")]

    def test_an_answer_without_a_thought_in_channels(self) -> None:
        assert list(Splitter().feed("<|channel|>final<|message|>yes")) == [Piece(Kind.SAID, "yes")]

    def test_words_that_are_gone_on_with_have_none(self) -> None:
        assert list(Splitter(thinks=False).feed("<think>a")) == [Piece(Kind.SAID, "<think>a")]


class Slow:
    """A source that takes long to load, in Python."""

    name = "slow"
    begun = threading.Event()

    def load(self) -> None:
        self.begun.set()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.01)


class TestLoading:
    def test_it_can_be_given_up(self) -> None:
        loader = Loader(Slow()).start()  # type: ignore[arg-type]
        assert Slow.begun.wait(10)
        assert not loader.wait(0)
        start = time.monotonic()
        loader.stop()
        assert time.monotonic() - start < 10
        assert isinstance(loader.error, KeyboardInterrupt)

    def test_what_it_raises_is_the_cause(self) -> None:
        source = FakeSource()
        source.load = lambda: (_ for _ in ()).throw(ValueError("damaged"))  # type: ignore[method-assign]
        ended = threading.Event()
        loader = Loader(source).start(ended.set)
        with pytest.raises(NotLoaded) as error:
            loader.wait(10)
        assert str(error.value.__cause__) == "damaged"
        assert ended.wait(10)
        loader.stop()


class Terminal:
    """What a terminal of some size shows that is sent what is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int = 40, lines: int = 12, encoding: str = "utf-8"):
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000)
        self.screen.set_mode(pyte.modes.LNM)
        self.stream = pyte.Stream(self.screen)
        self.sent = ""
        out = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(screen, "write", self.write)
        self.console = Console(
            file=out, force_terminal=True, width=columns, height=lines, color_system="standard", highlight=False
        )

    def write(self, text: str) -> None:
        self.sent += text
        self.stream.feed(text)

    @property
    def text(self) -> str:
        rows = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        return "\n".join(row.rstrip() for row in [*rows, *self.screen.display]).rstrip()


TEXT = """\
# A title

A paragraph with *stress*, **more** and `code`, which is long enough for two lines.
The next line,
    and one that is indented.

1. one
2. two
   - inner
   - other

   more of two
3. three

```python
def f(x):
    return x + 1  # one more
```

> quoted, and long enough that it needs a second line

| a | b |
|---|--:|
| 1 | 2 |

Some [link](http://fox.example/a_b) and ![image](x.png) and <b>html</b> &amp; 2 < 3.
"""


class TestMarkdown:
    def shown(self, text: str, monkeypatch: pytest.MonkeyPatch, sizes: Callable[[], int], **size: Any) -> str:
        terminal = Terminal(monkeypatch, **size)
        stream = markdown.Stream(screen.Screen(terminal.console))
        while text:
            n = sizes()
            stream.feed(text[:n])
            stream.draw()
            text = text[n:]
        stream.finish()
        return terminal.text

    def test_it_looks_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.shown(TEXT, monkeypatch, lambda: 7) == (
            "A title\n\n"
            "A paragraph with stress, more and code,\nwhich is long enough for two lines.\n"
            "The next line,\n    and one that is indented.\n\n"
            " 1 one\n 2 two\n    \u2022 inner\n    \u2022 other\n   more of two\n 3 three\n\n"
            "def f(x):\n    return x + 1  # one more\n\n"
            "\u258c quoted, and long enough that it\n\u258c needs a second line\n\n"
            "a  b\n\u2500\u2500\u2500\u2500\n1  2\n\n"
            "Some link (http://fox.example/a_b) and\n!image (x.png) and <b>html</b> & 2 < 3."
        )

    @pytest.mark.parametrize("lines", [4, 12, 60])
    @pytest.mark.parametrize("columns", [12, 40, 100])
    def test_however_it_comes(self, lines: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Blocks taller than the terminal too; but rows that have left it stay as they were when they did, so that what
        shrinks or grows as it is completed is left out for those: tables and links."""
        text = TEXT if lines == 60 else re.sub(r"\|.*\n|\(http.*?\)", "", TEXT)
        draw = random.Random(lines)
        whole = self.shown(text, monkeypatch, lambda: len(text), columns=columns, lines=lines)
        for size in (1, 3, 11, 0):
            found = self.shown(
                text, monkeypatch, lambda size=size: size or draw.randint(1, 40), columns=columns, lines=lines
            )
            assert found == whole

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.sampled_from(["\n", "\n\n", "- ", "1. ", "```\n", "> ", "word ", "**", "`", "#", "    ", "|", "<", "\t",
                             "---\n", "\x1b[2J", "\u202e", "\r", "\u6f22", "[a](b)", "&#27;[2J", "&#x9b;", "\\", "a"]),
            max_size=30,
        ).map("".join),
        st.randoms(use_true_random=False),
    )  # fmt: skip
    def test_nothing_but_styles_and_moves_is_sent(self, text: str, draw: random.Random) -> None:
        """Whatever the text: no escape but those of styles and of the cursor is sent, and nothing raises."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            terminal = Terminal(monkeypatch, columns=30, lines=50)
            stream = markdown.Stream(screen.Screen(terminal.console))
            rest = text
            while rest:
                n = draw.randint(1, 5)
                stream.feed(rest[:n])
                stream.draw()
                rest = rest[n:]
            stream.finish()
        rest = re.sub(r"\x1b\[(\d+(;\d+)*m|0?m|\d+A|K|J)", "", terminal.sent)
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", rest)

    def test_a_long_answer_is_not_parsed_again_and_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lists, code and paragraphs of many kB, drawn at every piece: what is parsed at once stays short."""
        longest = 0
        parse = markdown.PARSER.parse

        def counted(text: str) -> Any:
            nonlocal longest
            longest = max(longest, len(text))
            return parse(text)

        monkeypatch.setattr(markdown.PARSER, "parse", counted)
        code = "```c\n" + "int x = 1;\n\n" * 400 + "```\n"
        text = "A few words.\n\n" * 100 + "- item\n" * 300 + code
        self.shown(text, monkeypatch, lambda: 40)
        assert longest < 1200 < len(text) / 6

    def test_drawing_leaves_most_of_the_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A paragraph without an end: the longer a drawing takes, the longer none follows."""
        now, drawn = 0.0, []
        monkeypatch.setattr(markdown.time, "monotonic", lambda: now)
        terminal = Terminal(monkeypatch)
        stream = markdown.Stream(screen.Screen(terminal.console))

        def slow(text: str) -> list[str]:
            nonlocal now
            now += len(text) * 1e-4
            drawn.append(len(text) * 1e-4)
            return [text[-5:]]

        monkeypatch.setattr(stream, "_lines", slow)
        for _ in range(5000):
            now += 0.001
            stream.feed("word ")
        assert sum(drawn[:-1]) <= (now - drawn[-1]) / 6
        assert len(drawn) > 5

    def test_terminals_without_bullets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch, encoding="ascii")
        stream = markdown.Stream(screen.Screen(terminal.console))
        stream.feed("- one\n- two\n")
        stream.finish()
        assert terminal.text == " * one\n * two"

    def test_a_terminal_that_became_narrower(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Terminals wrap the rows that they show anew: what is drawn again begins where they begin now."""
        terminal = Terminal(monkeypatch, columns=40)
        live = screen.Screen(terminal.console)
        live.draw(["a" * 39, "\x1b[1mb\x1b[0m"])
        terminal.console.width = 20
        terminal.sent = ""
        live.draw(["c"])
        assert terminal.sent.startswith("\r\x1b[2A")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain \u00e4\U0001f98a\t\n", "plain \u00e4\U0001f98a\t\n"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J\x7f\r", "\\x9b2J\\x7f\\r"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_shown(text: str, safe: str) -> None:
    assert screen.shown(text) == safe


def test_the_first_prompt_waits_for_little() -> None:
    """Neither for the model nor for what shows answers: both are loaded while a person types."""
    needed = "cli.chat, cli.chat.session, cli.chat.display, cli.chat.local, cli.chat.editor"
    code = (
        "import sys; " + "; ".join(f"import quickbrown.{name}" for name in needed.split(", ")) + "; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "prompt_toolkit" in loaded
    heavy = {"numpy", "tokenizers", "quickbrown.llm", "rich", "markdown_it", "pygments.lexers", "http.client", "jinja2"}
    assert not heavy & set(loaded)


class TestWithoutATerminal:
    """`qb chat` whose input is a file or a pipe."""

    def run(self, text: str, monkeypatch: pytest.MonkeyPatch, *argv: str, scripts: Sequence[Any] = ()) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
        self.source = FakeSource("fox", *scripts)
        monkeypatch.setattr(chat, "source_of", lambda args: self.source)
        return main.call(["chat", *argv])

    def test_each_line_is_a_message(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        code = self.run(
            "one\n\ntwo\n/exit\nthree\n", monkeypatch, "--seed", "1", scripts=[["# a", "\n\n*b*\x1b[2J"], ["c\n"]]
        )
        assert code == 0
        assert capsys.readouterr() == ("# a\n\n*b*\x1b[2J\nc\n", "")
        assert [options for _, options, _ in self.source.asked] == [{"seed": 1}] * 2

    def test_an_error_ends_it(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run("one\ntwo\n", monkeypatch, scripts=[[ValueError("too long")]]) == 1
        assert capsys.readouterr().err == "qb: too long\n"

    def test_options_are_checked_before_anything_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run("", monkeypatch, "--temperature", "-1") == 1
        assert "temperature must be from 0 to 1,000,000" in capsys.readouterr().err

    def test_a_model_that_cannot_be_loaded(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(FakeSource, "load", lambda self: (_ for _ in ()).throw(ValueError("damaged")))
        assert self.run("one\n", monkeypatch) == 1
        assert capsys.readouterr().err == "qb: damaged\n"

    def test_ctrl_c_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("builtins.input", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        assert self.run("", monkeypatch) == 0
