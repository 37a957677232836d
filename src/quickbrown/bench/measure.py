"""How fast a model is in this process, and how much memory it takes."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quickbrown import __version__
from quickbrown.backends import native
from quickbrown.llm import LLM
from quickbrown.weights.kept import finish


@dataclass(frozen=True)
class Task:
    """What is measured, in tokens: a prompt; `batch` texts of `new` after `depth`; `repeat` times each."""

    prompt: int = 512
    new: int = 64
    depth: int = 16
    batch: int = 1
    repeat: int = 5

    def __post_init__(self) -> None:
        """Raises ValueError for counts of which no rate can be made."""
        for name, least in (("prompt", 1), ("new", 2), ("depth", 1), ("batch", 1), ("repeat", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value}")

    def fit(self, context: int) -> None:
        """Raises ValueError if a text would be longer than the model's context."""
        for words, tokens in (("prompt + 1", self.prompt + 1), ("depth + new", self.depth + self.new)):
            if tokens > context:
                raise ValueError(f"{words} is {tokens} tokens, more than the model's context of {context}")


def measure(load: Callable[[], LLM], task: Task) -> dict[str, Any]:
    """Seconds, tokens a second and bytes of one model; a rate is {median, least, most} of the repetitions.

    Prompts are token ids, other ones in each repetition, so that none is known from before. Tokens are picked greedily
    and an end of text is not heeded. Raises ValueError if the task does not fit the model's context.
    """
    start = time.perf_counter()
    llm = load()
    loaded = time.perf_counter() - start
    finish()  # a first start keeps its weights in the background, which would be measured too
    facts = llm.info()
    task.fit(facts["context"])
    seeds = iter(range(1, 2**31))

    def write(count: int, length: int, new: int) -> tuple[float, float]:
        """Seconds until each of `count` texts has its first token, and seconds for the rest."""
        prompts = [ids(length, next(seeds), facts["vocabulary"]) for _ in range(count)]
        stream = llm.stream_batch(prompts, max_new_tokens=new, temperature=0.0, ignore_eos=True)
        stream.read()
        first = max(text.first_token_seconds for text in stream.texts)
        return first, stream.seconds - first

    start = time.perf_counter()
    write(1, task.prompt, 1)
    write(task.batch, task.depth, 2)
    warm = time.perf_counter() - start
    firsts = [write(1, task.prompt, 1)[0] for _ in range(task.repeat)]
    rests = [write(task.batch, task.depth, task.new)[1] for _ in range(task.repeat)]
    return {
        "model": Path(facts["file"]).name,
        "task": asdict(task),
        "threads": facts["threads"],
        "load_seconds": loaded,
        "warm_up_seconds": warm,
        "first_token_seconds": spread(firsts),
        "prompt_tokens_per_second": spread(rates(task.prompt, firsts)),
        "decode_tokens_per_second": spread(rates(task.batch * (task.new - 1), rests)),
        "peak_bytes": peak_bytes(),
        "kernels": native.variant()["name"],
        "versions": {"quickbrown": __version__, "python": platform.python_version(), "numpy": version("numpy")},
    }


def ids(count: int, seed: int, vocabulary: int) -> list[int]:
    """`count` reproducible token ids below `vocabulary`."""
    state, found = seed * 7919 + 17, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        found.append((state >> 8) % vocabulary)  # the low bits of such a generator repeat soon
    return found


def rates(tokens: int, seconds: Sequence[float]) -> list[float]:
    """Tokens a second of each repetition."""
    return [tokens / each for each in seconds]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def peak_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The most memory this process has had so far; None where the system does not tell."""
    try:
        text = status.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
