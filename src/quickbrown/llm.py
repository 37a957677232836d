"""LLM: a model, loaded; texts, written. The one place where everything is put together."""

from __future__ import annotations

import dataclasses
import functools
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from quickbrown.backends.native.runner import NativeRunner
from quickbrown.engine.batch import Batch
from quickbrown.engine.engine import Engine, TooLong
from quickbrown.engine.sequence import Request
from quickbrown.generation.decoders.sample import Sample
from quickbrown.models.llama import Config, Llama
from quickbrown.quant.weight import Weight
from quickbrown.text.gguf_vocab import template_from_gguf, tokenizer_from_gguf
from quickbrown.text.pieces import Pieces
from quickbrown.text.template import ChatTemplate
from quickbrown.types import Completion, Event, Finish, FinishReason, SamplingParams
from quickbrown.weights import hub
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.source import Source

Messages = Sequence[Mapping[str, str]]

DTYPES = ("auto", "float32")
TEXTS_IN_MEMORY = 4  # of the model's full context each, ...
SHARE_OF_MEMORY = 0.25  # ... as far as they fit in this share of what is free


class LLM:
    """A language model.

    model    a name that `qb list` knows (fetched if it is not here), or the path of a GGUF file
    dtype    "auto": weights as published, their inputs rounded to match, keys and values in bfloat16;
             "float32": everything in float32, several times larger and slower, for comparisons
    threads  how many to compute with; the physical cores this process may use unless given

    Options of `generate`, `stream` and `chat` are the fields of `SamplingParams`; their defaults stand there.
    Not for use by several threads at the same moment: a lock makes them take turns.

    Raises hub.HubError for a model that cannot be had, BadFile for a damaged or unsupported file, ValueError for
    arguments out of range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2-135m",
        *,
        dtype: str = "auto",
        threads: int | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        if threads is not None and (
            not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024
        ):
            raise ValueError(f"threads must be a whole number from 1 to 1024, not {threads!r}")
        self.path: Path = hub.find(model, progress)
        self.dtype = dtype
        self.source = GgufSource(self.path)
        self.config = Config(**{f.name: self.source.config[f.name] for f in dataclasses.fields(Config)})
        with ThreadPoolExecutor(1) as aside:  # the vocabulary is built while the weights are packed
            vocabulary = aside.submit(tokenizer_from_gguf, self.source.metadata, self.path)
            weights = _Weights(self.source)
            self.runner = NativeRunner(
                Llama(self.config, weights),
                blocks=self._blocks(),
                threads=threads,
                dtype=dtype,
                packed=weights.release,
            )
            self.tokenizer = vocabulary.result()
        self.source.forget_vocabulary()
        self.engine = Engine(self.runner)
        self._lock = RLock()
        self._streams: dict[int, Stream] = {}
        self._next_id = 0

    @functools.cached_property
    def template(self) -> ChatTemplate | None:
        """How a conversation is written down for this model, if the file says. Raises BadFile for an unusable one.

        Made when first asked for: a text that is only continued does not wait for it.
        """
        return template_from_gguf(self.source.metadata, self.tokenizer, self.path)

    def _blocks(self) -> int:
        """How many KV blocks of 64 tokens: at least one full context, which is an error to exceed later, not now."""
        c = self.config
        value_bytes = 4 if self.dtype == "float32" else 2
        token_bytes = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * value_bytes
        size = NativeRunner.block_size
        one = -(-c.max_position_embeddings // size)
        fit = int(_available_memory() * SHARE_OF_MEMORY) // (token_bytes * size)
        return max(1, min(max(fit, 1), TEXTS_IN_MEMORY * one))

    # -- texts ----------------------------------------------------------------------------------------------------

    @overload
    def generate(self, prompt: str, **options: Any) -> Completion: ...
    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[Completion]: ...
    def generate(self, prompt: str | Sequence[str], **options: Any) -> Completion | list[Completion]:
        """Continue a text, or several together. Each text is what it would be alone.

        Raises UnknownOption, ValueError for options out of range, TooLong for a prompt beyond the context, and
        GenerationError if the model fails in the middle.
        """
        if isinstance(prompt, str):
            return self._write(self._tokens(prompt), options).read()
        prompts = [self._tokens(p) for p in prompt]
        streams: list[Stream] = []
        try:
            streams += (self._write(tokens, options) for tokens in prompts)
            return [stream.read() for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def stream(self, prompt: str, **options: Any) -> Stream:
        """Continue a text, piece by piece. Raises as `generate` does."""
        return self._write(self._tokens(prompt), options)

    def chat(self, messages: Messages, **options: Any) -> Completion:
        """The assistant's next message in a conversation of {"role": ..., "content": ...}.

        Raises as `generate` does, and ValueError for a model without a chat template or messages it does not take.
        """
        return self.stream_chat(messages, **options).read()

    def stream_chat(self, messages: Messages, **options: Any) -> Stream:
        """The same, piece by piece."""
        if self.template is None:
            raise ValueError(f"{self.path.name} has no chat template; use generate() with a prompt of your own")
        return self._write(self.tokenizer.encode(self.template.render(messages)), options)

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits after each of `tokens`, (len(tokens), vocab_size) float32. Raises ValueError for bad ids.

        Waits for nothing and nobody: call it when no text is being written.
        """
        with self._lock:
            if self.engine.live:
                raise ValueError("logits() needs the memory of the texts being written; finish or close them first")
            size, n = self.runner.block_size, len(tokens)
            if not 1 <= n <= min(self.runner.room() * size, self.config.max_position_embeddings):
                raise ValueError(f"logits() takes 1 to {self.config.max_position_embeddings} tokens, not {n}")
            ids, table = np.asarray(tokens, np.int32), np.arange(-(-n // size), dtype=np.int32)
            out = np.empty((n, self.runner.vocab_size), np.float32)
            for first in range(0, n, self.engine.scheduler.budget):
                part = np.arange(first, min(n, first + self.engine.scheduler.budget), dtype=np.int32)
                ends = np.array([0, len(part)], np.int32), np.array([0, len(table)], np.int32)
                fresh = table if first == 0 else table[:0]
                every = np.arange(len(part), dtype=np.int32)
                self.runner.run(Batch(ids[part], part, ends[0], table, ends[1], every, fresh))
                out[part] = self.runner.logits()
            return out

    def info(self) -> dict[str, Any]:
        """Facts about the model, and how it is held here."""
        c = self.config
        published: Counter[str] = Counter()
        for name in self.source.names():
            published[self.source.get(name).format] += 1
        weights = [self.source.get(name) for name in self.source.names()]
        held = {w.format: self.runner.weights.format(w) for w in weights if len(w.shape) == 2}
        return {
            "file": str(self.path),
            "file_bytes": self.path.stat().st_size,
            "family": self.source.config["model_type"],
            "parameters": sum(int(np.prod(w.shape)) for w in weights),
            "layers": c.num_hidden_layers,
            "hidden_size": c.hidden_size,
            "attention": f"{c.num_attention_heads} query heads, {c.num_key_value_heads} key heads of {c.head_dim}",
            "context": c.max_position_embeddings,
            "vocabulary": c.vocab_size,
            "chat_template": self.template is not None,
            "formats": {name: f"{count} tensors" for name, count in sorted(published.items())},
            "held_as": dict(sorted(held.items())),
            "packed_bytes": self.runner.weights.arena.bytes,
            "kv_bytes_per_token": self.runner.kv.block_bytes // self.runner.block_size,
            "kv_tokens": self.runner.room() * self.runner.block_size,
            "threads": self.runner.pool.threads,
        }

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _tokens(self, prompt: str) -> list[int]:
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt must be a string, not {type(prompt).__name__}")
        tokens = self.tokenizer.encode(prompt, bos=True)
        if not tokens:
            raise ValueError("the prompt is empty; give at least one character to continue")
        return tokens

    def _write(self, prompt: list[int], options: dict[str, Any]) -> Stream:
        params = SamplingParams.from_options(options)
        limit = min(self.config.max_position_embeddings, self.runner.room() * self.runner.block_size)
        room = limit - len(prompt)
        if room < 1:
            raise TooLong(f"the prompt has {len(prompt)} tokens and the context holds {limit}; shorten it")
        if params.max_new_tokens > room:
            if "max_new_tokens" in options:
                raise TooLong(
                    f"a prompt of {len(prompt)} tokens leaves room for {room} new ones in a context of {limit}; "
                    f"lower max_new_tokens to that"
                )
            params = dataclasses.replace(params, max_new_tokens=room)  # nobody chose a length: the context is it
        seed = secrets.randbits(64) if params.seed is None else params.seed
        stop_tokens = frozenset() if params.ignore_eos else self.tokenizer.eos_ids
        with self._lock:
            request = Request(self._next_id, tuple(prompt), Sample(), params, seed, stop_tokens)
            self._next_id += 1
            self.engine.add(request)
            stream = self._streams[request.id] = Stream(self, request, Pieces(self.tokenizer, params.stop))
        return stream

    def _step(self) -> None:
        """One step of the engine; each event goes to its stream."""
        with self._lock:
            for event in self.engine.step():
                if event.request in self._streams:
                    self._streams[event.request]._take(event)

    def _end(self, request: int) -> None:
        with self._lock:
            self.engine.cancel(request)
            self._streams.pop(request, None)


class GenerationError(RuntimeError):
    """The model failed in the middle of a text."""


class Stream:
    """A text being written: iterate over its pieces, whole characters as they come.

    completion            the finished text, once the iteration has ended or `close` was called
    first_token_seconds   from the call to the first token
    seconds               from the call to the end
    """

    def __init__(self, llm: LLM, request: Request, pieces: Pieces) -> None:
        self._llm, self._request, self._pieces = llm, request, pieces
        self._started = time.perf_counter()
        self._texts: list[str] = []
        self._ready: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._finish: Finish | None = None
        self.first_token_seconds = float("nan")
        self.seconds = float("nan")

    def __iter__(self) -> Iterator[str]:
        try:
            while True:
                with self._llm._lock:
                    while not self._ready and self._finish is None:
                        self._llm._step()
                    ready, self._ready = self._ready, []
                if ready:
                    yield "".join(ready)
                elif self._finish is not None:
                    break
        finally:
            self.close()
        if self._finish.reason is FinishReason.ERROR:
            raise GenerationError(str(self._finish.detail))

    def read(self) -> Completion:
        """All of it."""
        for _ in self:
            pass
        return self.completion

    def close(self) -> None:
        """End the text now if it has not ended; what was written stays in `completion`."""
        if self._finish is None:
            self._ended(Finish(FinishReason.CANCELLED))
        self._llm._end(self._request.id)

    @property
    def completion(self) -> Completion:
        if self._finish is None:
            raise ValueError("the text is still being written; iterate to its end or close it first")
        params = self._request.params
        return Completion(
            text="".join(self._texts),
            tokens=tuple(self._tokens),
            prompt_tokens=len(self._request.prompt),
            finish=self._finish,
            logprobs=tuple(self._logprobs) if params.logprobs else None,
            seed=self._request.seed if params.temperature > 0 else None,
        )

    def _take(self, event: Event) -> None:
        if self._finish is not None:
            return
        if event.tokens and not self._tokens:
            self.first_token_seconds = time.perf_counter() - self._started
        self._tokens += event.tokens
        self._logprobs += event.logprobs or ()
        self._add(self._pieces.push(event.tokens))
        if self._pieces.stopped is not None:
            self._ended(Finish(FinishReason.STOP, self._pieces.stopped))
            self._llm.engine.cancel(self._request.id)
        elif event.finish is not None:
            self._ended(event.finish)

    def _add(self, text: str) -> None:
        if text:
            self._texts.append(text)
            self._ready.append(text)

    def _ended(self, finish: Finish) -> None:
        self._add(self._pieces.finish())
        self._finish = finish
        self.seconds = time.perf_counter() - self._started


class _Weights(Mapping[str, Weight]):
    """Weights by name, each read once, so that a tied weight is one object; given back once packed."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._read: dict[str, Weight] = {}
        self._names: dict[int, str] = {}

    def __getitem__(self, name: str) -> Weight:
        if name not in self._read:
            self._read[name] = weight = self.source.get(name)
            self._names[id(weight)] = name
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.source.names())

    def __len__(self) -> int:
        return len(self.source.names())

    def release(self, weight: Weight) -> None:
        self.source.release(self._names[id(weight)])


def _available_memory() -> int:
    """Bytes that can be had without pushing anybody out, as far as the system tells."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30
