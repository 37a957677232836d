"""The command line, on a model that answers from a list."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quickbrown
from quickbrown.cli import doctor, generate, main
from quickbrown.cli.command import SAMPLING, flag
from quickbrown.cli.info import lines
from quickbrown.types import Completion, Finish, FinishReason, SamplingParams, size
from quickbrown.weights import hub, kept
from quickbrown.weights.kept import Kept

Script = list[str | BaseException]


class FakeStream:
    """Yields the pieces of a script; an exception in it is raised in its place."""

    first_token_seconds = 0.5
    seconds = 1.5

    def __init__(self, script: Script, finish: Finish) -> None:
        self.script = script
        self.closed = False
        self.finish = finish

    def __iter__(self) -> Iterator[str]:
        for piece in self.script:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        text = "".join(str(piece) for piece in self.script)
        self.completion = Completion(text, (7,) * len(self.script), 3, self.finish)

    def close(self) -> None:
        self.closed = True


class FakeBatch:
    """A FakeStream as the only row of a call."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream
        self.close = stream.close
        self.first_token_seconds, self.seconds = stream.first_token_seconds, stream.seconds

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return ((0, piece) for piece in self.stream)

    @property
    def completions(self) -> list[Completion]:
        return [self.stream.completion]


class FakeLLM:
    """Remembers how it was made and what it was asked; answers with the next script."""

    def __init__(self, model: str = "default", progress: Any = None, **settings: Any) -> None:
        self.model = model
        self.settings = settings
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.scripts: list[Script] = [[" fox", " jumps"]]
        self.finish = Finish(FinishReason.STOP, 2)
        self.streams: list[FakeStream] = []

    def stream(self, prompt: Any, **options: Any) -> FakeStream:
        SamplingParams.from_options(options)
        self.asked.append((prompt, options))
        self.streams.append(FakeStream(self.scripts.pop(0) if self.scripts else ["yes"], self.finish))
        return self.streams[-1]

    def stream_batch(self, prompts: list[Any], n: int, **options: Any) -> FakeBatch:
        assert n == 1
        [prompt] = prompts
        return FakeBatch(self.stream(prompt, **options))


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[FakeLLM]:
    """The models that were loaded, in order."""
    made: list[FakeLLM] = []

    def make(*args: Any, **settings: Any) -> FakeLLM:
        made.append(FakeLLM(*args, **settings))
        return made[-1]

    monkeypatch.setitem(vars(quickbrown), "LLM", make)  # before the real one is imported: it needs the extension
    return made


def typed(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), "utf-8"))


class TestChoosing:
    @pytest.mark.parametrize(("word", "command"), [("genrate", "generate"), ("chta", "chat"), ("Doctor", "doctor")])
    def test_a_slip_is_corrected(
        self, word: str, command: str, models: list[FakeLLM], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main.call([word]) == 2
        said = capsys.readouterr().err
        assert said == f"qb: did you mean `qb {command}`? To use it as a prompt: qb generate '{word}'\n"
        assert not models

    @pytest.mark.parametrize("prompt", ["The quick brown", "generate a poem", "hello", "chta with me", "", "日本"])
    def test_a_text_is_a_prompt(self, prompt: str, models: list[FakeLLM]) -> None:
        assert main.call([prompt]) == 0
        assert models[0].asked == [(prompt, {})]

    def test_options_may_come_before_a_bare_prompt(self, models: list[FakeLLM]) -> None:
        assert main.call(["-m", "other.gguf", "The quick"]) == 0
        assert models[0].model == "other.gguf"

    def test_without_arguments_the_commands_are_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call([]) == main.call(["--help"]) == 0
        shown = capsys.readouterr().out
        assert all(f"  {name} " in shown for name in main.COMMANDS)

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["generate", "x", "--temprature", "1"], "there is no option --temprature; did you mean --temperature?"),
            (["generate", "x", "--temp", "1"], "there is no option --temp"),
            (["generate", "x", "--num-beams", "4"], "--num-beams is not supported yet; leave it out"),
            (["generate", "x", "--output-scores"], "--output-scores means something to generate() of Python only"),
            (["generate", "x", "--suppress-tokens", "a"], "give token ids with commas between them, like 5,6, not 'a'"),
            (["generate", "x", "--sequence-bias", "[1"], "'[1' is no JSON"),
            (["generate", "The", "quick"], "'quick' is one word too many"),
            (["generate", "x", "--top-k", "many"], "give a whole number, not 'many'"),
            (["generate", "x", "--dtype", "int3"], "it is one of auto, float32, not 'int3'"),
            (["info"], "the following arguments are required: model"),
        ],
    )
    def test_what_is_not_known_is_refused(
        self, argv: list[str], said: str, models: list[FakeLLM], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as end:
            main.call(argv)
        assert end.value.code == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert shown.count("\n") == 1
        assert not models


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ValueError("the prompt is\nempty"), "qb: the prompt is empty\n"),
            (RuntimeError("QB_ISA=x is not known."), "qb: QB_ISA=x is not known.\n"),
            (
                FileNotFoundError(2, "No such file or directory", "x.gguf"),
                "qb: x.gguf: No such file or directory; check the spelling\n",
            ),
            (KeyError("k"), "qb: unexpected KeyError: 'k' (--debug shows where)\n"),
            (ValueError(), "qb: unexpected ValueError:  (--debug shows where)\n"),
            (
                OSError(28, "No space left on device"),
                "qb: No space left on device; free some room, or name another place\n",
            ),
            (MemoryError("no 5 MB"), "qb: memory ran out (no 5 MB); close other programs, or take a smaller model\n"),
        ],
    )
    def test_an_error_is_one_sentence(
        self, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(main, "dispatch", lambda argv: (_ for _ in ()).throw(error))
        assert main.call(["x"]) == 1
        assert capsys.readouterr().err == said

    def test_a_traceback_can_be_had(self, models: list[FakeLLM], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["x", "--top-p", "2", "--debug"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("Traceback")
        assert said.endswith("\nqb: top_p must be above 0 and at most 1, not 2.0\n")

    def test_a_bad_value_costs_no_load(self, models: list[FakeLLM], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["generate", "x", "--top-p", "2"]) == 1
        assert capsys.readouterr().err == "qb: top_p must be above 0 and at most 1, not 2.0\n"
        assert not models

    def test_an_unknown_model_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["pull", "smolm2"]) == 1
        said = capsys.readouterr().err
        assert "smollm2-135m" in said
        assert said.count("\n") == 1

    def test_ctrl_c_ends_with_130_and_closes_the_stream(
        self, models: list[FakeLLM], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FakeLLM, "stream", lambda llm, prompt, **options: llm.streams.append(
            FakeStream([" fox", KeyboardInterrupt()], llm.finish)) or llm.streams[-1])  # fmt: skip
        assert main.call(["x"]) == 130
        assert models[0].streams[0].closed

    @pytest.mark.skipif(os.name == "nt", reason="pipes close differently; needs a POSIX system")
    def test_a_reader_that_leaves_is_no_error(self) -> None:
        code = """if True:
            from quickbrown.cli import command, main

            def dispatch(argv):
                while True:
                    command.write("x" * 1000)

            main.dispatch = dispatch
            main.main()
        """
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
        assert process.wait() == main.PIPE_CLOSED


class TestGenerate:
    def test_only_what_was_typed_is_passed_on(self, models: list[FakeLLM], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["generate", "The quick", "--temperature", "0", "--seed", "0"]) == 0
        assert models[0].settings == {}
        assert models[0].asked == [("The quick", {"temperature": 0.0, "seed": 0})]
        assert capsys.readouterr().out == " fox jumps\n"

    def test_every_option_arrives(self, models: list[FakeLLM]) -> None:
        """Each as it is typed for its kind of value, and as the library takes it."""
        typed = {
            "": [([], True)],
            "N": [(["3"], 3)],
            "X": [(["0.5"], 0.5)],
            "SECONDS": [(["2.5"], 2.5)],
            "TEXT": [(["\n"], "\n"), (["END"], "END")],
            "IDS": [(["5,6"], [5, 6])],
            "JSON": [],
        }
        json = {"bad_words_ids": [[5], [6, 7]], "sequence_bias": [[[7, 8], -2.5]],
                "exponential_decay_length_penalty": [20, 1.05]}  # fmt: skip
        argv, options = ["--threads", "1", "--dtype", "float32", "--memory", "2GB"], {}
        for name, one in SAMPLING.items():
            if name == "max_length":  # which says the same as max_new_tokens
                continue
            values = typed[one.value] if one.value != "JSON" else [([str(json[name])], json[name])]
            for words, value in values:
                argv += [flag(name), *words]
                options[name] = [*options.get(name, []), value] if one.value == "TEXT" else value
        assert main.call(["generate", "-m", "m.gguf", "x", *argv]) == 0
        assert models[0].asked[0][1] == options
        assert (models[0].model, models[0].settings) == (
            "m.gguf",
            {"threads": 1, "dtype": "float32", "memory": "2GB"},
        )

    @pytest.mark.parametrize("argv", [["generate"], ["generate", "-"], ["-"]])
    def test_a_prompt_can_come_through_a_pipe(
        self, argv: list[str], models: list[FakeLLM], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        typed("Once\n\nüpon\n\n".encode(), monkeypatch)
        assert main.call(argv) == 0
        assert models[0].asked[0][0] == "Once\n\nüpon\n"

    def test_bytes_that_are_no_text_are_refused(
        self, models: list[FakeLLM], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        typed(b"ab\xff", monkeypatch)
        assert main.call(["generate"]) == 1
        assert "qb: standard input is not UTF-8 text: byte 2 (0xff) cannot be read; " in capsys.readouterr().err

    def test_on_a_terminal_without_a_prompt_it_does_not_wait(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
        assert main.call(["generate"]) == 1
        assert "there is no prompt" in capsys.readouterr().err

    def test_echo_and_figures(self, models: list[FakeLLM], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["generate", "The", "--echo", "--stats"]) == 0
        shown = capsys.readouterr()
        assert shown.out == "The fox jumps\n"
        figures = shown.err.split(", ")
        assert figures[1:] == [
            "3 prompt tokens", "first token after 0.500 s", "2 new tokens", "1.0 tokens/s", "stop (2)\n",
        ]  # fmt: skip

    def test_one_token_has_no_rate(self) -> None:
        one = Completion("a", (1,), 3, Finish(FinishReason.LENGTH))
        assert generate.figures([one], 0.1, 0.5, 0.5).endswith("1 new tokens, no rate, length")

    def test_an_error_in_the_middle_is_an_error(
        self, models: list[FakeLLM], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        script: Script = ["a", RuntimeError("memory ran out")]
        monkeypatch.setattr(FakeLLM, "stream", lambda llm, prompt, **options: FakeStream(script, llm.finish))
        assert main.call(["x"]) == 1
        assert capsys.readouterr() == ("a\n", "qb: memory ran out\n")


class TestFirstRun:
    @pytest.mark.parametrize("terminal", [True, False])
    def test_it_explains_itself_on_a_terminal(
        self,
        terminal: bool,
        models: list[FakeLLM],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("QB_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
        assert main.call(["x"]) == 0
        said = capsys.readouterr().err.splitlines()
        assert len(said) == (2 if terminal else 0)
        if terminal:
            assert said[0] == f"Fetching smollm2-135m (92.9 MB, Apache-2.0) once, into {tmp_path / 'home'}."
            assert "`qb list`" in said[1]
            hub.listing()[0].path.parent.mkdir(parents=True)
            assert main.call(["x"]) == 0
            assert capsys.readouterr().err == ""


class TestModels:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("QB_HOME", str(tmp_path))
        return tmp_path

    def fetched(self) -> Path:
        model = hub.listing()[0]
        model.path.parent.mkdir(parents=True)
        with open(model.path, "wb") as file:
            file.truncate(model.bytes)
        return model.path

    def test_list_says_what_is_here(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["list"]) == 0
        assert "not fetched" in capsys.readouterr().out
        path = self.fetched()
        assert main.call(["list"]) == 0
        assert str(path) in capsys.readouterr().out

    def test_pull_of_a_fetched_model_only_says_where(self, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.fetched()
        assert main.call(["pull", "smollm2-135m"]) == 0
        assert capsys.readouterr().err == f"smollm2-135m is in {path}\n"

    @pytest.mark.parametrize(("answer", "code", "gone"), [("y", 0, True), ("n", 1, False), ("", 1, False)])
    def test_rm_asks(self, answer: str, code: int, gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.fetched()
        monkeypatch.setattr(sys, "stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
        monkeypatch.setattr("builtins.input", lambda question: answer)
        assert main.call(["rm", "smollm2-135m"]) == code
        assert path.exists() != gone

    def test_rm_does_not_wait_for_nobody(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.fetched()
        typed(b"", monkeypatch)
        assert main.call(["rm", "smollm2-135m"]) == 1
        assert "--yes" in capsys.readouterr().err
        assert path.exists()
        assert main.call(["rm", "smollm2-135m", "--yes"]) == 0
        assert capsys.readouterr().err == "98.4 MB freed\n"
        assert not path.exists()
        assert main.call(["rm", "smollm2-135m"]) == 0
        assert capsys.readouterr().err == "0 B freed\n"


class TestPacked:
    """What is kept of models for a faster start: shown, verified, removed."""

    @pytest.fixture(autouse=True)
    def models(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        monkeypatch.setenv("QB_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("QB_PACKED_LIMIT")
        made = [tmp_path / name for name in ("a.gguf", "b.gguf")]
        for path in made:
            path.write_bytes(b"GGUF" + bytes(1000))
            assert Kept(path, "weights, as published", "1").write({}, [bytes(100_000)])
        return made

    def test_rm_of_one(self, models: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["rm", "--packed", str(models[0])]) == 0
        assert capsys.readouterr().err.endswith(" kB freed\n")
        assert models[0].exists()
        assert [bool(kept.of(path)) for path in models] == [False, True]
        assert main.call(["rm", "--packed", str(models[0])]) == 0
        assert capsys.readouterr().err == "0 B freed\n"

    def test_rm_of_one_that_is_gone(self, models: list[Path]) -> None:
        models[0].unlink()
        assert main.call(["rm", "--packed", str(models[0])]) == 0
        assert [bool(kept.of(path)) for path in models] == [False, True]

    def test_rm_of_all(self, models: list[Path]) -> None:
        assert main.call(["rm", "--packed"]) == 0
        assert not kept.entries()
        assert all(path.exists() for path in models)

    def test_rm_of_a_name_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["rm", "--packed", "smollm2-135"]) == 1
        assert "did you mean smollm2-135m?" in capsys.readouterr().err
        assert len(kept.entries()) == 2

    def test_rm_without_a_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["rm"]) == 1
        assert "name the model" in capsys.readouterr().err

    def test_rm_takes_what_is_kept_along(self, capsys: pytest.CaptureFixture[str]) -> None:
        model = hub.listing()[0]
        model.path.parent.mkdir(parents=True)
        with open(model.path, "wb") as file:
            file.truncate(model.bytes)
        assert Kept(model.path, "weights, as published", "1").write({}, [bytes(100_000)])
        assert main.call(["rm", model.name, "--yes"]) == 0
        assert len(kept.entries()) == 2

    def test_doctor_shows_it(self, models: list[Path]) -> None:
        models[0].write_bytes(b"GGUF")
        (kept.folder() / "junk.kept").write_bytes(b"junk")
        shown = "\n".join(lines({"packed": doctor.packed()}))
        assert str(kept.folder()) in shown
        assert "of at most 20 GB" in shown
        assert re.search(r"a\.gguf \(weights, as published\) +\S+ kB \(stale\)", shown)
        assert re.search(r"b\.gguf \(weights, as published\) +\S+ kB$", shown, re.MULTILINE)
        assert "junk.kept (damaged)" in shown

    def test_doctor_says_that_nothing_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QB_PACKED_LIMIT", "0")
        assert doctor.packed()["kept"] == "nothing is kept"

    def test_verify(self, models: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.call(["doctor", "--verify"]) == 0
        assert capsys.readouterr().out.count("good ") == 2
        models[0].write_bytes(b"GGUF")
        assert main.call(["doctor", "--verify"]) == 0
        assert re.search(r"stale +\S+a\.gguf", capsys.readouterr().out)
        (entry,) = kept.entries()
        with open(entry.path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\1")
        assert main.call(["doctor", "--verify"]) == 1
        assert f"damaged  {entry.path}" in capsys.readouterr().out
        assert not kept.entries()
        assert main.call(["doctor", "--verify"]) == 0
        assert capsys.readouterr().out == "nothing is kept\n"


class TestFacts:
    def test_lines(self) -> None:
        facts = {"family": "llama", "parameters": 134515008, "file_bytes": 98362432, "chat_template": True,
                 "mapped": None, "formats": {"layers": "q4_1, held as q4_1"}, "ends": [1, 2]}  # fmt: skip
        assert list(lines(facts)) == [
            "family         llama",
            "parameters     134,515,008",
            "file bytes     98,362,432 (98.4 MB)",
            "chat template  yes",
            "mapped         no",
            "formats",
            "  layers  q4_1, held as q4_1",
            "ends           1, 2",
        ]

    def test_doctor(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("QB_HOME", str(tmp_path))
        monkeypatch.setattr(doctor, "variant", lambda: (False, {"fault": "QB_ISA=x is not known."}))
        monkeypatch.setattr(doctor, "memory", lambda threads: {"threads": "2", "reading": "20 GB/s"})
        monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
        assert main.call(["doctor"]) == 1
        shown = capsys.readouterr().out
        assert all(word in shown for word in ("QB_ISA=x", str(tmp_path), "smollm2-135m", "tokenizers", "python"))

    @pytest.mark.parametrize(
        ("count", "text"), [(0, "0 B"), (999, "999 B"), (98362432, "98.4 MB"), (999_600, "1 MB"), (2e12, "2 TB")]
    )
    def test_sizes(self, count: float, text: str) -> None:
        assert size(count) == text

    def test_nothing_to_show(self) -> None:
        assert list(lines({})) == []


def test_the_command_line_loads_nothing_heavy() -> None:
    """Process start is time to the first token: what a command alone needs is imported when it runs."""
    code = "import sys, quickbrown.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"rich", "prompt_toolkit", "typer", "numpy", "tokenizers", "jinja2", "torch", "importlib.metadata"}
    assert not heavy & set(loaded)
