"""Commands on a tiny model file: what is written, as text, as events, as lines of a batch, and as judgements."""

from __future__ import annotations

import html.parser
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest

import quickbrown
from gguf_writer import write_tiny_llama
from quickbrown import LLM
from quickbrown.cli import batch, main, shown

SYSTEM = {"role": "system", "content": "S"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny.gguf", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def llm(path):
    llm = LLM(path, threads=2)
    yield llm
    llm.close()


@pytest.fixture(autouse=True)
def _one_model(llm, path, monkeypatch):
    """Each command gets the same loaded model, if it asks for that file."""

    def load(name, progress=None, **settings):
        assert (name, settings) == (str(path), {})
        return llm

    monkeypatch.setitem(vars(quickbrown), "LLM", load)


@pytest.fixture
def qb(path, capsys):
    """Runs a command on the model: its exit code, what it wrote and what it said."""

    def run(command, *argv):
        code = main.call([command, "-m", str(path), *map(str, argv)])
        return code, *capsys.readouterr()

    return run


def typed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))


class TestGenerate:
    def test_text(self, qb, llm, tmp_path, monkeypatch):
        want = llm.generate("abc", max_new_tokens=9).text
        file = tmp_path / "prompt.txt"
        file.write_text("abc\n")
        assert qb("generate", "abc", "--max-new-tokens", 9) == (0, want + "\n", "")
        assert qb("generate", "-f", file, "--max-new-tokens", 9) == (0, want + "\n", "")
        typed(monkeypatch, b"abc\n")
        assert qb("generate", "-f", "-", "--max-new-tokens", 9) == (0, want + "\n", "")

    @pytest.mark.parametrize(("flags", "opening"), [(["--chat"], []), (["--system", "S"], [SYSTEM])])
    def test_a_message_is_answered(self, qb, llm, flags, opening):
        want = llm.chat([*opening, {"role": "user", "content": "abc"}], max_new_tokens=9).text
        assert qb("generate", "abc", *flags, "--max-new-tokens", 9) == (0, want.removesuffix("\n") + "\n", "")

    def test_several_texts(self, qb, llm):
        want = llm.generate("abc", n=2, temperature=1.0, seed=3, max_new_tokens=9, stop="\n")
        code, out, _ = qb("generate", "abc", "-n", 2, "--do-sample", "--seed", 3, "--max-new-tokens", 9, "--stop", "\n")
        assert (code, out) == (0, f"--- 1 of 2 ---\n{want[0].text}\n--- 2 of 2 ---\n{want[1].text}\n")

    def test_events(self, qb, llm):
        options = {"temperature": 1.0, "seed": 3, "max_new_tokens": 9}
        want = llm.generate("abc", n=2, logprobs=True, **options)
        code, out, _ = qb("generate", "abc", "-n", 2, "--json", "--temperature", 1, "--seed", 3, "--max-new-tokens", 9)
        assert code == 0
        start, *events = map(json.loads, out.splitlines())
        assert start["event"] == "start"
        assert start["load_seconds"] >= 0
        for row, completion in enumerate(want):
            tokens = [event for event in events if event["row"] == row and event["event"] == "token"]
            assert [event["id"] for event in tokens] == list(completion.tokens)
            assert [event["logprob"] for event in tokens] == list(completion.logprobs)
            [end] = [event for event in events if event["row"] == row and event["event"] == "end"]
            assert (end["text"], end["seed"], end["finish_reason"]) == (completion.text, completion.seed, "length")
            assert (end["new_tokens"], end["prompt_tokens"], end["stopped_by"]) == (9, 3, None)
            assert 0 < end["first_token_seconds"] <= end["seconds"]
            assert end["tokens_per_second"] > 0
        assert events[-1]["event"] == "end"

    def test_events_of_a_text_that_is_interrupted(self, qb, llm, monkeypatch):
        """Ctrl-C in the middle: every text still has its end."""
        from quickbrown.streams import BatchStream

        read = BatchStream.__next__
        pieces = iter(range(3))

        def interrupted(stream):
            if next(pieces, None) is None:
                raise KeyboardInterrupt
            return read(stream)

        monkeypatch.setattr(BatchStream, "__next__", interrupted)
        code, out, _ = qb("generate", "abc", "--json", "--max-new-tokens", 90, "--ignore-eos")
        events = [json.loads(line) for line in out.splitlines()]
        assert code == 130
        assert events[-1]["event"] == "end"
        assert events[-1]["finish_reason"] in ("cancelled", "length")
        assert events[-1]["new_tokens"] == len(events) - 2

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["abc", "-n", 2], "2 texts would all be the same without a draw"),
            (["abc", "--raw", "--chat"], "leave one out"),
            (["abc", "-f", "x"], "the prompt is given twice"),
            (["abc", "--output", "x"], "--output belongs to --jsonl"),
            (["abc", "--jsonl", "x"], "a prompt and --jsonl both say what to continue"),
            (["--jsonl", "x", "--json"], "--json does not go with --jsonl"),
        ],
    )
    def test_what_does_not_go_together(self, qb, argv, said):
        code, out, err = qb("generate", *argv)
        assert (code, out) == (1, "")
        assert said in err
        assert err.count("\n") == 1


LINES = [
    '"abc"',
    "",
    '{"prompt": "abd", "id": {"a": 1}, "temperature": 1}',
    '{"messages": [{"role": "user", "content": "abc"}], "max_new_tokens": 2}',
    '{"prompt": [5, 6, 7], "logprobs": true}',
    '{"prompt": 5}',
    '{"prompt": "abc", "zzz": 1}',
    "nonsense",
    "[" * 100_000,
    '{"prompt": "abc", "messages": []}',
    '{"prompt": [5, 300]}',
    '{"prompt": "abc", "n": 2}',
    '"abc"',
]


class TestBatch:
    @pytest.fixture
    def given(self, tmp_path):
        (tmp_path / "in.jsonl").write_text("\n".join(LINES))
        return tmp_path / "in.jsonl"

    def run(self, qb, given, out, *more):
        return qb("generate", "--jsonl", given, "--output", out, "--max-new-tokens", 6, "--seed", 1, *more)

    def test_a_line_for_each(self, qb, llm, given, tmp_path):
        code, out, err = self.run(qb, given, tmp_path / "out.jsonl")
        assert (code, out) == (1, "")
        assert err.startswith("12 lines, 7 of them errors; ")
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["line"] for row in rows] == [1, *range(3, 14)]
        first, second, third, fourth, *wrong, last = rows
        assert first["text"] == last["text"] == llm.generate("abc", max_new_tokens=6).text
        assert second["id"] == {"a": 1}
        again = llm.generate(["abd"], max_new_tokens=6, temperature=1.0, seed=[second["seed"]])[0]
        assert second["text"] == again.text
        assert third["new_tokens"] == 2
        assert len(fourth["tokens"]) == len(fourth["logprobs"]) == 6
        assert [row["error"][:30] for row in wrong] == [
            "a prompt must be a string, a l", "unknown option 'zzz'; known op", "the line is no JSON: Expecting",
            "the line is nested too deep", 'a line needs "prompt" or "mess', "the prompt has token 300, outs",
            "a line is for one text, so it ",
        ]  # fmt: skip

    def test_a_system_message_is_for_prompts_of_text(self, qb, llm, tmp_path):
        (tmp_path / "in").write_text('"abc"\n{"messages": [{"role": "user", "content": "abc"}]}\n[5, 6]\n')
        self.run(qb, tmp_path / "in", tmp_path / "out", "--system", "S")
        first, *others = map(json.loads, (tmp_path / "out").read_text().splitlines())
        want = llm.chat([SYSTEM, {"role": "user", "content": "abc"}], max_new_tokens=6)
        assert first["text"] == want.text
        assert all("--system and --chat go with prompts of text" in other["error"] for other in others)

    def test_it_goes_on_where_it_was_cut(self, qb, given, tmp_path, monkeypatch):
        """Cut at every line, and in the middle of each: the file becomes the same, byte for byte."""
        self.run(qb, given, whole := tmp_path / "whole.jsonl")
        data = whole.read_bytes()
        monkeypatch.setattr(batch, "WINDOW", 2)
        ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
        part = tmp_path / "part.jsonl"
        for cut in [0, *ends[:-1], *(end - 5 for end in ends)]:
            part.write_bytes(data[:cut])
            _, _, err = self.run(qb, given, part)
            assert part.read_bytes() == data
            done = data[:cut].count(b"\n")
            assert err.startswith(f"{12 - done} lines, ")
            assert (f"after {done} done before" in err) == (done > 0)
        assert self.run(qb, given, part) == (0, "", f"all 12 lines are in {part} already\n")

    def test_ctrl_c_leaves_whole_lines(self, qb, given, tmp_path, monkeypatch):
        self.run(qb, given, whole := tmp_path / "whole.jsonl")
        finish = batch.Run.finish

        def interrupted(run):
            if run.waiting[0][0].number == 6:
                raise KeyboardInterrupt
            finish(run)

        part = tmp_path / "part.jsonl"
        with monkeypatch.context() as patch:
            patch.setattr(batch.Run, "finish", interrupted)
            code, _, err = self.run(qb, given, part)
        assert code == 130
        assert err == f"4 of 12 lines are in {part}; the same command goes on from there\n"
        self.run(qb, given, part)
        assert part.read_bytes() == whole.read_bytes()

    def test_another_file_is_not_added_to(self, qb, given, tmp_path):
        for text in ("my thesis\n", '{"line": 2}\n', '{"line": 1}\n' * 2, "[1]\n", '{"line": 1}\n' + "x\n" * 20):
            other = tmp_path / "other"
            other.write_text(text)
            code, _, err = self.run(qb, given, other)
            assert code == 1
            assert f"of {other} was not made of {given}" in err
            assert other.read_text() == text

    def test_what_is_no_file_is_not_read(self, qb, given, tmp_path):
        """/dev/full has no end: reading what was done before took all memory."""
        code, _, err = self.run(qb, given, "/dev/full")
        assert code == 1
        assert "/dev/full is no file that could be gone on with" in err
        (tmp_path / "none").write_text("\n \n")
        assert "holds no line" in qb("generate", "--jsonl", tmp_path / "none")[2]

    def test_to_standard_output(self, path, given):
        """In a process of its own, since it writes bytes."""
        command = [sys.executable, "-m", "quickbrown.cli.main", "generate", "-m", path, "--jsonl", "-",
                   "--max-new-tokens", "3", "--ignore-eos"]  # fmt: skip
        done = subprocess.run(command, input="\n".join(LINES[:3]).encode(), capture_output=True, check=True)
        assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1, 3]
        assert done.stderr.decode().startswith("2 lines, 0 of them errors; 6 tokens, ")


class TestExplain:
    TEXT = 'a<b>&"é\x1b[0m'

    def test_table(self, qb, llm):
        code, out, _ = qb("explain", self.TEXT, "--top", 2)
        assert code == 0
        head, first, *lines = out.splitlines()
        assert head.split() == ["token", "prob", "bits", "rank", "entropy", "likeliest"]
        assert first.split() == ['"a"']
        score = llm.score(self.TEXT, top=2)
        for line, one in zip(lines, score.tokens[1:], strict=False):
            found = re.match(r'"\S+" +(\S+%) +(\S+) +(\d+) +(\S+)  ', line)
            assert found[1] == f"{math.exp(one.logprob):.2%}"
            assert float(found[2]) == pytest.approx(-one.logprob / math.log(2), abs=0.005)
            assert int(found[3]) == one.rank + 1
            assert float(found[4]) == pytest.approx(one.entropy / math.log(2), abs=0.005)
        assert len(lines) == len(score.tokens)
        assert "\x1b" not in out
        assert lines[-1].startswith(f"{len(score.tokens)} tokens, perplexity {score.perplexity:.2f}, ")

    @pytest.mark.parametrize(("no_color", "width"), [("", "100"), ("1", "40"), ("", "12")])
    def test_in_a_terminal(self, qb, monkeypatch, no_color, width):
        monkeypatch.setattr(shown.sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", width)
        _, out, _ = qb("explain", "abc def")
        assert ("\x1b[38;5;" in out) == (not no_color)
        plain = re.sub(r"\x1b\[[\d;]*m", "", out)
        assert "\x1b" not in plain
        table = plain.splitlines()[0 if no_color else 4 :]
        assert len(table) == 9
        assert all(len(line) <= int(width) for line in table)

    def test_json(self, qb, llm):
        _, out, _ = qb("explain", self.TEXT, "--top", 2, "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        score = llm.score(self.TEXT, top=2)
        assert [row["id"] for row in rows] == [one.token for one in score.tokens]
        assert rows[0]["logprob"] is None
        assert [row["logprob"] for row in rows[1:]] == [one.logprob for one in score.tokens[1:]]
        assert [other["id"] for other in rows[3]["alternatives"]] == [i for i, _ in score.tokens[3].alternatives]

    def test_page(self, qb, tmp_path):
        """Parsed, its text is the one that was given, and nothing of that text has become markup."""
        assert qb("explain", self.TEXT, "--html", tmp_path / "a.html")[2] == f"wrote {tmp_path / 'a.html'}\n"

        class Reader(html.parser.HTMLParser):
            tags, text, inside = set(), "", False

            def handle_starttag(self, tag, attributes):
                self.tags.add(tag)
                self.inside |= ("class", "text") in attributes

            def handle_endtag(self, tag):
                self.inside &= tag != "p"

            def handle_data(self, data):
                self.text += data if self.inside else ""

        page = (tmp_path / "a.html").read_text("utf-8")
        reader = Reader()
        reader.feed(page)
        assert reader.text == self.TEXT
        assert reader.tags == {"html", "head", "meta", "title", "style", "body", "p", "span", "table", "tr", "th", "td"}
        assert not re.search(r"https?://|src=|@import|url\(", page)

    def test_plot(self, qb, tmp_path):
        pytest.importorskip("matplotlib", reason="pip install 'quickbrown[plot]' would run this")
        for name, begins in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
            assert qb("explain", "a$b$ \u65e5", "--plot", tmp_path / name)[0] == 0
            assert (tmp_path / name).read_bytes().startswith(begins)

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["abc", "--plot", "a.gif"], "must end in .png or .svg"),
            (["abc", "--top", "-1"], "top must be a whole number from 0"),
            (["a", "--plot", "a.png"], "there is nothing to draw"),
            (["a" * 500, "--plot", "a.png"], "a plot shows at most 400"),
        ],
    )
    def test_refusals(self, qb, argv, said):
        code, _, err = qb("explain", *argv)
        assert code == 1
        assert said in err

    def test_a_single_token(self, qb):
        assert qb("explain", "a")[1].endswith("1 token, which nothing stands before: there is nothing to judge\n")


class TestScore:
    def test_files(self, qb, llm, tmp_path):
        files = [tmp_path / "a.txt", tmp_path / "b.txt"]
        for file, text in zip(files, ("abc def", "ghi é"), strict=True):
            file.write_text(text, "utf-8")
        _, out, _ = qb("score", *files, "--json")
        first, second, both = map(json.loads, out.splitlines())
        for row, text in ((first, "abc def"), (second, "ghi é")):
            score = llm.score(text)
            assert (row["tokens"], row["judged"]) == (len(score.tokens), len(score.tokens) - 1)
            assert row["logprob"] == score.logprob
            assert row["perplexity"] == pytest.approx(score.perplexity)
            assert row["bits_per_byte"] == pytest.approx(-score.logprob / math.log(2) / len(text.encode()))
        assert both["logprob"] == first["logprob"] + second["logprob"]
        assert both["perplexity"] == pytest.approx(math.exp(-both["logprob"] / both["judged"]))
        _, out, _ = qb("score", *files)
        assert [line.split()[0] for line in out.splitlines()] == ["file", str(files[0]), str(files[1]), "all"]

    def test_a_pipe_and_strides(self, qb, llm, monkeypatch):
        text = "abcdefgh" * 60
        assert len(llm.tokenizer.encode(text)) > llm.longest
        found = set()
        for stride in (1, llm.longest):
            typed(monkeypatch, text.encode())
            found.add(json.loads(qb("score", "--stride", stride, "--json")[1])["logprob"])
        assert len(found) == 2

    def test_one_token(self, qb, monkeypatch, tmp_path):
        typed(monkeypatch, b"a")
        assert "nothing stands before" in qb("score")[1]
        (tmp_path / "a").write_text("a")
        assert qb("score", tmp_path / "a", tmp_path / "a")[1].count("nothing stands before") == 1
        row = json.loads(qb("score", tmp_path / "a", "--json")[1])
        assert (row["judged"], row["logprob"], row["perplexity"]) == (0, None, None)
        typed(monkeypatch, b"")
        assert "standard input is empty" in qb("score")[2]


class TestTokenize:
    def test_each_way(self, qb, llm):
        text = 'aé"<|im_end|>'
        tokens = llm.tokenizer.encode(text)
        assert qb("tokenize", text, "--ids")[1] == ",".join(map(str, tokens)) + "\n"
        assert qb("tokenize", text, "--count")[1] == f"{len(tokens)}\n"
        assert json.loads(qb("tokenize", text, "--json")[1])["ids"] == tokens
        assert qb("tokenize", "--decode", ",".join(map(str, tokens)))[1] == text + "\n"
        lines = qb("tokenize", text)[1].splitlines()
        assert lines[0].split() == [str(tokens[0]), '"a"']
        assert lines[-1].split() == ["2", '"<|im_end|>"']
        assert qb("tokenize", "<|im_end|>", "--count", "--plain")[1] != "1\n"

    def test_refusals(self, qb):
        assert "leave one of them out" in qb("tokenize", "a", "--decode", "1")[2]
        assert "token id 999 is out of range" in qb("tokenize", "--decode", "999")[2]


def test_shown_bytes():
    assert shown.quoted(b'a"\\\n\xc3\xa9\xe6\x1b') == '"a\\"\\\\\\né\\xe6\\u001b"'
    assert shown.harmless("a\n\x1b[0m\u202e") == "a\n\\u001b[0m\\u202e"
    assert shown.width("日a\u0301") == 3
    assert shown.cut("日本語日本語", 8) == "日本..."
    assert shown.cut("abc", 2) == ".."


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here; one would run this")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ge"], {"generate"}),
        (["generate", "--top-"], {"--top-k", "--top-p", "--top-h"}),
        (["generate", "-m", ""], {"smollm2-135m"}),
        (["pull", ""], {"smollm2-135m"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["generate", "--quantize", ""], {"q4", "q8", "nf4", "fp4"}),
        (["generate", "Once"], set()),
    ],
)
def test_bash_completes(words, offered, capsys):
    assert main.call(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    line = " ".join(f"'{word}'" for word in ["qb", *words])
    script += f'\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _qb; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_know_every_option(shell, capsys):
    assert main.call(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name, command in main.COMMANDS.items():
        assert name in script
        for action in command.parser()._actions:
            for word in action.option_strings:
                assert (word if shell == "zsh" else f"-{'l' if word[1] == '-' else 's'} {word.lstrip('-')} ") in script
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", script], check=True)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_terminals_of_few_characters(path, encoding):
    """What they cannot show becomes a question mark, and what the program itself says they can show."""
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "quickbrown.cli.main", "explain", "-m", path, "日é"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"\\x" in done.stdout
    assert done.stderr == b""
