"""How fast a model is in this process, and how much memory it takes."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from quickbrown import __version__
from quickbrown.backends import native
from quickbrown.llm import LLM, Job
from quickbrown.types import FinishReason, SamplingParams
from quickbrown.weights.kept import finish


@dataclass(frozen=True)
class Task:
    """What is measured, in tokens: a prompt; `batch` texts of `new` after `depth`; `repeat` times each.

    Of depth and batch there may be several: each combination is measured.
    """

    prompt: int = 512
    new: int = 64
    depth: tuple[int, ...] = (16,)
    batch: tuple[int, ...] = (1,)
    repeat: int = 5

    def __post_init__(self) -> None:
        """Raises ValueError for counts of which no rate can be made."""
        for name, least in (("prompt", 1), ("new", 2), ("depth", 1), ("batch", 1), ("repeat", 1)):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            for one in values:
                if one < least:
                    raise ValueError(f"{name} must be a whole number of at least {least}, not {one}")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a number twice: {', '.join(map(str, values))}")

    def combinations(self) -> Iterator[tuple[int, int]]:
        """Each depth with each batch."""
        return ((depth, batch) for depth in self.depth for batch in self.batch)

    def fit(self, llm: LLM) -> None:
        """Raises ValueError if a text would be longer than the model's context, or the texts of a batch than memory."""
        context = llm.config.max_position_embeddings
        for words, tokens in (("prompt + 1", self.prompt + 1), ("depth + new", max(self.depth) + self.new)):
            if tokens > context:
                raise ValueError(f"{words} is {tokens} tokens, more than the model's context of {context}")
        size, blocks = llm.runner.block_size, llm.runner.room()
        for depth, batch in self.combinations():
            if batch * -(-(depth + self.new) // size) > blocks:
                raise ValueError(
                    f"memory holds {blocks * size} tokens, too few for {batch} texts of {depth} + {self.new} together"
                )


def measure(load: Callable[[], LLM], task: Task, *, profiled: bool = False) -> dict[str, Any]:
    """Seconds, tokens a second and bytes of one model; a rate is {median, least, most} of the repetitions.

    Tokens are picked greedily and an end of text is not heeded. Each repetition reads a prompt of other token ids, so
    that none is known from before; texts that are continued have been read before, and only their writing is timed.
    profiled  adds where the time goes of the prompt, and of a step of each depth and batch

    Raises ValueError if the task does not fit the model's context or memory.
    """
    start = time.perf_counter()
    llm = load()
    loaded = time.perf_counter() - start
    task.fit(llm)
    finish()  # a first start keeps its weights in the background, which would be measured too
    facts = llm.info()
    seeds = iter(range(1, 2**31))

    def read() -> float:
        """Seconds from a prompt to its first token."""
        prompt = ids(task.prompt, next(seeds), facts["vocabulary"])
        start = time.perf_counter()
        [[first]] = write(llm, [prompt], 1)
        return first - start

    start = time.perf_counter()
    read()
    write(llm, [ids(16, next(seeds), facts["vocabulary"])], 2)
    warm = time.perf_counter() - start
    firsts = [read() for _ in range(task.repeat)]
    read_profile, decode = {}, []
    if profiled:
        from quickbrown.bench.profile import profile, profile_prompts

        prompts = [ids(task.prompt, next(seeds), facts["vocabulary"]) for _ in range(task.repeat)]
        read_profile = {"prompt_profile": asdict(profile_prompts(llm, prompts))}
    for depth, batch in task.combinations():
        prompts = texts(depth, batch, facts["vocabulary"])
        write(llm, prompts, 2)
        found = [rate(write(llm, prompts, task.new)) for _ in range(task.repeat)]
        decode.append({"depth": depth, "batch": batch, "tokens_per_second": spread(found)})
        if profiled:
            decode[-1]["profile"] = asdict(profile(llm, prompts, task.new))
    return {
        "model": Path(facts["file"]).name,
        "task": asdict(task),
        "threads": facts["threads"],
        "load_seconds": loaded,
        "warm_up_seconds": warm,
        "first_token_seconds": spread(firsts),
        "prompt_tokens_per_second": spread([task.prompt / seconds for seconds in firsts]),
        **read_profile,
        "decode": decode,
        "peak_bytes": peak_bytes(),
        "kernels": native.variant()["name"],
        "versions": {"quickbrown": __version__, "python": platform.python_version(), "numpy": version("numpy")},
    }


def write(llm: LLM, prompts: Sequence[list[int]], new: int) -> list[list[float]]:
    """Continue texts together by `new` tokens each; when each token of each was there, `time.perf_counter` seconds.

    Raises RuntimeError if the model failed.
    """
    stamps: list[list[float]] = [[] for _ in prompts]
    pieces: SimpleQueue[tuple[int, str, bool]] = SimpleQueue()
    params = SamplingParams(max_new_tokens=new, temperature=0.0, ignore_eos=True)
    rows = llm.begin(
        [
            Job(prompt=prompt, params=params, seeds=(0,), watch=partial(stamp, times))
            for prompt, times in zip(prompts, stamps, strict=True)
        ],
        pieces.put,
    )
    try:
        left = len(rows)
        while left:
            left -= pieces.get()[2]
    finally:
        for row in rows:
            row.close()
    for row in rows:
        if row.finish is not None and row.finish.reason is FinishReason.ERROR:
            raise RuntimeError(f"the model failed: {row.finish.detail}")
    return stamps


def stamp(times: list[float], text: object, tokens: Sequence[int]) -> None:
    times += [time.perf_counter()] * len(tokens)


def rate(stamps: Sequence[Sequence[float]]) -> float:
    """Tokens a second while all texts are being written, each a token a step; `stamps[i]` are those of text i's tokens.

    Before, some are still being read, and after, some have ended. Raises ValueError if there is no such time.
    """
    last = max(stamps, key=lambda times: times[0])
    ahead = max(sum(moment <= last[0] for moment in times) for times in stamps) - 1  # tokens, of the first to begin
    steps = len(last) - 1 - ahead
    if steps < 1:
        raise ValueError(f"{len(stamps)} texts are not all being written before the first ends; give a larger new")
    return len(stamps) * steps / (last[steps] - last[0])


def texts(depth: int, batch: int, vocabulary: int) -> list[list[int]]:
    """Prompts of `depth` token ids."""
    return [ids(depth, 2**20 + i, vocabulary) for i in range(batch)]


def ids(count: int, seed: int, vocabulary: int) -> list[int]:
    """`count` reproducible token ids below `vocabulary`."""
    state, found = seed * 7919 + 17, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        found.append((state >> 8) % vocabulary)  # the low bits of such a generator repeat soon
    return found


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
