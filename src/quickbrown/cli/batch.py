"""qb generate --jsonl: many texts together, a line of JSON in and a line of JSON out, in order, to be gone on with."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from quickbrown.cli.command import FAILED, decoded, load, note
from quickbrown.cli.generate import finite, prompt_of, record
from quickbrown.cli.progress import Count
from quickbrown.generation.seeds import hashed

if TYPE_CHECKING:
    from quickbrown.llm import LLM
    from quickbrown.streams import BatchStream

WINDOW = 64  # texts that are being written, or wait for the one before them


class Line(NamedTuple):
    """A line of the file that was given, and its number there, from 1."""

    number: int
    text: str


@dataclass
class Begun:
    """A line that has been taken up: a text that is being written, or what is wrong with it."""

    stream: BatchStream | None = None
    error: str = ""
    name: Any = None  # its "id", which is handed on
    logprobs: bool = False


def batch(args: argparse.Namespace, options: dict[str, Any]) -> int:
    for name, value in (("a prompt", args.prompt), ("-f", args.file)):
        if value is not None:
            raise ValueError(f"{name} and --jsonl both say what to continue; leave one out")
    for name, wrong in (("-n", args.n != 1), ("--echo", args.echo), ("--json", args.json)):
        if wrong:
            raise ValueError(f"{name} does not go with --jsonl, which writes one line for each; leave it out")
    lines = read(args.jsonl)
    if not lines:
        raise ValueError(f"{args.jsonl} holds no line to write a text for")
    with ExitStack() as stack:
        if args.output is None:
            out, done = sys.stdout.buffer, 0
        else:
            out, done = stack.enter_context(resume(Path(args.output), args.jsonl, lines))
        if done == len(lines):
            note(f"all {len(lines)} lines are in {args.output} already")
            return 0
        llm = load(args)
        count = stack.enter_context(Count("lines", len(lines), done))
        run = Run(llm, args, options, out, count)
        try:
            run.write(lines[done:])
        except KeyboardInterrupt:
            if args.output is not None:
                count.__exit__()
                note(f"{run.written} of {len(lines)} lines are in {args.output}; the same command goes on from there")
            raise
    note(
        f"{len(lines) - done} lines, {run.errors} of them errors"
        + (f", after {done} done before" if done else "")
        + f"; {run.tokens} tokens, {count.rate:.1f} tokens/s"
    )
    return FAILED if run.errors else 0


def read(source: str) -> list[Line]:
    """The lines of a file, or of standard input, that are not blank."""
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    text = decoded(data, "standard input" if source == "-" else source)
    return [Line(number, one) for number, one in enumerate(text.split("\n"), 1) if one.strip()]


@contextmanager
def resume(path: Path, source: str, lines: Sequence[Line]) -> Iterator[tuple[BinaryIO, int]]:
    """The file to add to, and how many lines are done in it. What a kill cut off in the middle is taken away.

    Raises ValueError for a file that was made of other lines, and is left as it is.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file that could be gone on with; without --output, lines go to standard output")
    try:
        with open(path, "a+b") as file:
            file.seek(0)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            done = data[:whole].splitlines()
            for at, (line, wanted) in enumerate(zip_longest(done, (one.number for one in lines[: len(done)])), 1):
                if number_of(line) != wanted or wanted is None:
                    raise ValueError(f"line {at} of {path} was not made of {source}; name another file with --output")
            file.truncate(whole)
            yield file, len(done)
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def number_of(line: bytes) -> Any:
    """The line that a line of output is about; None if it says nothing of the kind."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said.get("line") if isinstance(said, dict) else None


class Run:
    """The writing of lines: a window of them together, handed out in order."""

    def __init__(
        self, llm: LLM, args: argparse.Namespace, options: dict[str, Any], out: BinaryIO, count: Count
    ) -> None:
        self.llm, self.args, self.options, self.out, self.count = llm, args, options, out, count
        self.waiting: deque[tuple[Line, Begun]] = deque()
        self.written, self.tokens, self.errors = count.done, 0, 0

    def write(self, lines: Sequence[Line]) -> None:
        try:
            for line in lines:
                self.waiting.append((line, self.begin(line)))
                if len(self.waiting) == WINDOW:
                    self.finish()
            while self.waiting:
                self.finish()
        finally:
            for _, begun in self.waiting:
                if begun.stream is not None:
                    begun.stream.close()

    def tell(self) -> None:
        """Have the bar show what is written, and what waits for the one before it."""
        texts = [text for _, begun in self.waiting if begun.stream is not None for text in begun.stream.texts]
        ended = sum(text.finish is not None for text in texts)
        self.count(self.written + ended, self.tokens + sum(len(text.tokens) for text in texts))

    def begin(self, line: Line) -> Begun:
        """A text that is being written, or what is wrong with the line."""
        begun = Begun()
        try:
            said = json.loads(line.text)
            said = said if isinstance(said, dict) else {"prompt": said}
            begun.name = said.pop("id", None)
            prompt, messages = said.pop("prompt", None), said.pop("messages", None)
            if (prompt is None) == (messages is None):
                raise ValueError('a line needs "prompt" or "messages", and not both')
            if "n" in said:
                raise ValueError("a line is for one text, so it takes no n; repeat the line")
            if isinstance(prompt, str):
                prompt = prompt_of(prompt, self.args)
            elif self.args.system is not None or (self.args.chat and messages is None):
                raise ValueError("--system and --chat go with prompts of text; give the line all its messages")
            options = self.options | said
            if "seed" in self.options and "seed" not in said:  # as in a call: a row's own follows from its number
                options["seed"] = [hashed(self.options["seed"], line.number)]
            begun.logprobs = options.get("logprobs") is True
            begun.stream = self.llm.stream_batch([prompt if messages is None else messages], **options)
        except json.JSONDecodeError as error:
            begun.error = f"the line is no JSON: {error}"
        except RecursionError:
            begun.error = "the line is nested too deep"
        except (ValueError, TypeError) as error:
            begun.error = " ".join(str(error).split())
        return begun

    def finish(self) -> None:
        """Wait for the first text, and write its line."""
        line, begun = self.waiting[0]
        said = {"line": line.number} | ({} if begun.name is None else {"id": begun.name})
        if begun.stream is None:
            said["error"] = begun.error
        else:
            with suppress(RuntimeError):  # GenerationError, which the finish says too
                for _ in begun.stream:
                    self.tell()
            [text] = begun.stream.texts
            self.tokens += len(text.tokens)
            completion = text.completion
            if completion.finish.reason == "error":
                said["error"] = completion.finish.detail
            else:
                said |= record(completion)
                if begun.logprobs:
                    said |= {"tokens": completion.tokens, "logprobs": list(map(finite, completion.logprobs or ()))}
        self.errors += "error" in said
        self.out.write((json.dumps(said, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
        self.out.flush()
        self.waiting.popleft()
        self.written += 1
        self.tell()
