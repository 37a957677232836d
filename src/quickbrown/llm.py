"""LLM: a model, loaded; texts, written. The one place where everything is put together."""

from __future__ import annotations

import dataclasses
import functools
import glob
import math
import os
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import numpy.typing as npt

from quickbrown.backends.native.compile import LAYOUT, Formats, TooLarge, packed_bytes
from quickbrown.backends.native.memory import available_memory
from quickbrown.backends.native.runner import NativeRunner, kv_block_bytes
from quickbrown.engine.decoder import Decoder as Writer
from quickbrown.engine.decoder import Processor
from quickbrown.engine.draft import Draft
from quickbrown.engine.engine import Engine
from quickbrown.engine.runner import places
from quickbrown.engine.sequence import Request
from quickbrown.engine.thread import EngineThread
from quickbrown.generation import processors
from quickbrown.generation.chain import Chain
from quickbrown.generation.decoders.draft import MOST, Drafted
from quickbrown.generation.decoders.lookup import Lookup
from quickbrown.generation.decoders.sample import Sample
from quickbrown.generation.gain import DraftGain, Gain
from quickbrown.generation.score import judge, windows
from quickbrown.generation.seeds import row_seeds
from quickbrown.models.blocks import Decoder
from quickbrown.models.config import Config
from quickbrown.models.families import of_model_type
from quickbrown.models.rope import Rope
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.weight import PartWeight, Weight
from quickbrown.streams import BatchStream, NoPieces, Out, Piece, Reader, Stream, Text, Texts, Watch, ends
from quickbrown.text.gguf_vocab import template_from_gguf, tokenizer_from_gguf
from quickbrown.text.pieces import Pieces
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.types import Completion, SamplingParams, Score, TokenScore, TooLong, size
from quickbrown.weights import hub
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.kept import Kept, finish, later
from quickbrown.weights.source import Source

if TYPE_CHECKING:
    from quickbrown.text.template import ChatTemplate
    from quickbrown.weights.safetensors import SafetensorsSource

Messages = Sequence[Mapping[str, str]]
Prompt = str | Sequence[int] | Messages  # a text, token ids, or a conversation

DTYPES = ("auto", "bfloat16", "float32")
ACTIVATIONS = ("auto", "bf16")
_KV = {"bfloat16": "bf16", "float32": "f32", "int8": "int8"}
KV_CACHE_DTYPES = ("auto", *_KV)
QUANTIZATIONS = ("q4", "q8", "nf4", "fp4")
TEXTS_IN_MEMORY = 4  # of the model's full context each, ...
SHARE_OF_MEMORY = 0.25  # ... as far as they fit in this share of what is free
MOST_SAMPLES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt to continue, in token ids, with everything decided: what `LLM.begin` takes.

    seeds        one for each text to write of it
    stop_tokens  tokens that end a text
    shown        special tokens whose text is a part of what is written
    processor    changes rows of logits before they are drawn from
    watch        sees every new token, and may end a text
    draft        another model of the same vocabulary that guesses, and how many tokens a step at most
    """

    prompt: Sequence[int]
    params: SamplingParams
    seeds: tuple[int, ...]
    stop_tokens: frozenset[int] = frozenset()
    shown: frozenset[int] = frozenset()
    processor: Processor | None = None
    watch: Watch | None = None
    draft: tuple[LLM, int] | None = None


class LLM:
    """A language model.

    model     a name that `qb list` knows or one like "org/name" on the Hugging Face Hub (fetched if it is not here),
              the path of a GGUF file, or of a folder with config.json and safetensors
    dtype     "auto": weights as published, their inputs rounded to match, keys and values in bfloat16;
              "bfloat16": the same, and float weights in bfloat16;
              "float32": everything in float32, several times larger and slower, for comparisons
    activations
              what quantized weights multiply: "auto": integers of 8 bits, 32 to a scale; "bf16": nearer to the
              unrounded model, and slower over prompts
    kv_cache_dtype
              what keys and values are stored in: "auto" (or None): bfloat16, or float32 where dtype is that; "int8":
              integers of 8 bits with a scale for each token's key and value of a head, half the memory and faster over
              long texts, at a small loss; "bfloat16" and "float32"
    quantize  "q4" or "q8": linear weights to 4 or 8 bits as they are loaded, so that the model is never held twice;
              "nf4" and "fp4": to the code books of bitsandbytes. The head, and what is small already, stay as they are.
    threads   how many to compute with; the physical cores this process may use unless given
    memory    for keys and values, and for states: bytes, or a string like "2GB" or "512MiB"; unless
              given, four texts of the model's full context, but at most a quarter of what is free. It is taken as it is
              needed. Texts that do not fit together wait for each other; what nobody needs any more is kept for texts
              that begin alike.
    draft     a smaller model of the same vocabulary: a name or path, or an LLM that lends its weights. It guesses some
              tokens, and this model reads them in one step; the text stays the same. Done where that is measured to
              save time, and not for texts with prompt_lookup_num_tokens.
    revision, token  of a name on the Hub: a branch, tag or commit, and who asks

    Options of `generate`, `stream` and `chat` are the fields of `SamplingParams`; their defaults stand there. Any
    number of threads may write with one LLM at the same time: their texts are computed together, and none changes.

    Raises hub.HubError for a model that cannot be had, BadFile for a damaged or unsupported file, ValueError for
    arguments out of range and for weights that do not fit into memory.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2-135m",
        *,
        dtype: str = "auto",
        activations: str = "auto",
        kv_cache_dtype: str | None = "auto",
        quantize: str | None = None,
        threads: int | None = None,
        memory: int | str | None = None,
        draft: str | os.PathLike[str] | LLM | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        if activations not in ACTIVATIONS:
            raise ValueError(f"activations must be one of {', '.join(ACTIVATIONS)}, not {activations!r}")
        if activations == "bf16" and dtype == "float32":
            raise ValueError('dtype="float32" rounds no activations; leave it or activations="bf16" out')
        if kv_cache_dtype not in (None, *KV_CACHE_DTYPES):
            raise ValueError(f"kv_cache_dtype must be one of {', '.join(KV_CACHE_DTYPES)}, not {kv_cache_dtype!r}")
        if quantize is not None and quantize not in QUANTIZATIONS:
            raise ValueError(f"quantize must be None or one of {', '.join(QUANTIZATIONS)}, not {quantize!r}")
        if quantize is not None and dtype == "float32":
            raise ValueError('dtype="float32" holds every weight in float32; leave it out, or quantize')
        if threads is not None and (
            not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024
        ):
            raise ValueError(f"threads must be a whole number from 1 to 1024, not {threads!r}")
        room = None if memory is None else parse_bytes(memory)
        self.path: Path = hub.locate(model, revision=revision, token=token, progress=progress)
        self.dtype, self.activations = dtype, activations
        if kv_cache_dtype is None or kv_cache_dtype == "auto":
            kv_cache_dtype = "float32" if dtype == "float32" else "bfloat16"
        self.kv_cache_dtype = kv_cache_dtype
        kept = None if dtype == "float32" else place(self.path, dtype, quantize)
        self.source = open_source(self.path)
        family = of_model_type(self.source.config["model_type"])
        self.config: Config = configured(self.source)
        with ThreadPoolExecutor(1) as aside:  # the vocabulary is built while the weights are packed
            vocabulary = aside.submit(self._vocabulary)
            self._weights = _Weights(self.source)
            self.model: Decoder = family.Model(self.config, self._weights)
            self._weights.watch(progress)
            try:
                self.runner = NativeRunner(
                    self.model,
                    blocks=self._blocks(room),
                    threads=threads,
                    dtype=dtype,
                    packed=self._weights.release,
                    hold=holding(quantize, self.model),
                    wide=activations == "bf16",
                    kv=_KV[kv_cache_dtype],
                    kept=kept,
                )
            except TooLarge as error:
                raise ValueError(f"{error}; {self._fitting(error.free)}") from None
            self.vocabulary: Tokenizer | None = vocabulary.result()
        if isinstance(self.source, GgufSource):
            self.source.forget_vocabulary()
        self.gain = Gain()
        self.plain = Sample()
        # By the models that guess: each one's memory, and what writes with so many guesses a step.
        self._drafts: weakref.WeakKeyDictionary[LLM, tuple[Draft, dict[int, Drafted]]] = weakref.WeakKeyDictionary()
        if not isinstance(draft, (str, os.PathLike, LLM, type(None))):
            raise TypeError(f"draft must be a name, a path or an LLM, not {draft!r}")
        own = LLM(draft, threads=threads, progress=progress) if isinstance(draft, (str, os.PathLike)) else None
        self.draft = draft if isinstance(draft, LLM) else own
        self._own_draft = own
        if self.draft is not None:
            self.follow(self.draft)
        self.engine = EngineThread(Engine(self.runner, deep=deep(self.config, self._weights.read()), meter=self.gain))
        self._finalizer = weakref.finalize(self, self.engine.close)
        engine = self.engine.engine
        self._keeping = (  # beside a text it would slow that down
            [later(self.runner.weights.keep, lambda: not engine.idle)] if self.runner.weights.unkept else []
        )

    def _vocabulary(self) -> Tokenizer | None:
        """The tokenizer that came with the weights, if one did."""
        if isinstance(self.source, GgufSource):
            return tokenizer_from_gguf(self.source.metadata, self.path, lazy=True)
        from quickbrown.text.files import tokenizer_from_folder, vocabulary_in

        return tokenizer_from_folder(self.path, lazy=True) if vocabulary_in(self.path) else None

    @property
    def tokenizer(self) -> Tokenizer:
        """Strings and token ids. Raises BadFile for a model without a vocabulary, which takes and gives ids only."""
        if self.vocabulary is None:
            from quickbrown.text.files import tokenizer_from_folder

            return tokenizer_from_folder(self.path)  # it says what is missing
        return self.vocabulary

    def close(self) -> None:
        """End all texts and the engine's thread. Also done when the LLM is let go, or the process ends.

        Waits until the packed weights are kept for the next start, as the end of the process does.
        """
        self._finalizer()
        finish(self._keeping)
        if self._own_draft is not None:
            self._own_draft.close()

    @functools.cached_property
    def template(self) -> ChatTemplate | None:
        """How a conversation is written down for this model, if the file says. Raises BadFile for an unusable one.

        Made when first asked for: a text that is only continued does not wait for it.
        """
        if isinstance(self.source, GgufSource):
            return template_from_gguf(self.source.metadata, self.tokenizer, self.path)
        from quickbrown.text.files import template_from_folder

        return template_from_folder(self.path, self.tokenizer)

    def _blocks(self, memory: int | None) -> int:
        """How many KV blocks of 64 tokens `memory` bytes hold, or the default. Raises ValueError if that cannot be."""
        c = self.config
        block_bytes = kv_block_bytes(_KV[self.kv_cache_dtype], c.kv_layers)
        place_bytes = state_bytes(c)
        free = available_memory()
        if memory is None:
            one_text = -(-self.longest // NativeRunner.block_size)
            return max(
                1, min(fitting(int(free * SHARE_OF_MEMORY), block_bytes, place_bytes), TEXTS_IN_MEMORY * one_text)
            )
        least = block_bytes + place_bytes * places(1)
        if memory < least:
            raise ValueError(f"memory must be at least {least:,} bytes, what 64 tokens take here, not {memory:,}")
        if memory > free:
            raise ValueError(f"memory is {memory:,} bytes, but only {free:,} are free; ask for less")
        return fitting(memory, block_bytes, place_bytes)

    def _fitting(self, free: int) -> str:
        """What to do where so many bytes are too few for the weights."""
        ways = {f'with quantize="{name}"': Formats(hold=holding(name, self.model)) for name in ("q8", "q4")}
        for way, format in ({'without dtype="float32"': Formats()} if self.dtype == "float32" else ways).items():
            if (needed := packed_bytes(self._weights.read(), format)) <= free:
                return f"{way} they take {size(needed)}, and fit"
        return "close other programs, or take a smaller model"

    # -- texts ----------------------------------------------------------------------------------------------------

    @overload
    def generate(self, prompt: str, *, n: None = None, **options: Any) -> Completion: ...
    @overload
    def generate(self, prompt: str, *, n: int, **options: Any) -> list[Completion]: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], *, n: None = None, **options: Any) -> list[Completion]: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], *, n: int, **options: Any) -> list[list[Completion]]: ...
    def generate(self, prompt: str | Sequence[Prompt], *, n: int | None = None, **options: Any) -> Any:
        """Continue a text, or several together: strings, lists of token ids, or conversations. Each is what it would be
        alone.

        n  a number of texts to write of each prompt, which is read once; there is a list of n in the place of each

        Raises UnknownOption, ValueError for options out of range, TooLong for a prompt beyond the context, and
        GenerationError, with all completions, if the model fails in the middle of one.
        """
        if isinstance(prompt, str):
            return self._all([prompt], n, options)[0]
        return self._all(prompt, n, options)

    @overload
    def chat(self, messages: Messages, *, n: None = None, **options: Any) -> Completion: ...
    @overload
    def chat(self, messages: Messages, *, n: int, **options: Any) -> list[Completion]: ...
    @overload
    def chat(self, messages: Sequence[Messages], *, n: None = None, **options: Any) -> list[Completion]: ...
    @overload
    def chat(self, messages: Sequence[Messages], *, n: int, **options: Any) -> list[list[Completion]]: ...
    def chat(self, messages: Messages | Sequence[Messages], *, n: int | None = None, **options: Any) -> Any:
        """The assistant's next message in a conversation of {"role": ..., "content": ...}, or in several.

        Raises as `generate` does, and ValueError for a model without a chat template or messages it does not take.
        """
        conversations, several = split(messages)
        written = self._all([self.conversation(one) for one in conversations], n, options)
        return written if several else written[0]

    def stream(self, prompt: str, **options: Any) -> Stream:
        """Continue a text, piece by piece. Raises as `generate` does. Of several, or `n`, see `stream_batch`."""
        pieces: SimpleQueue[Piece] = SimpleQueue()
        return Stream(self, self.write([prompt], None, options, pieces.put), pieces)

    def stream_chat(self, messages: Messages, **options: Any) -> Stream:
        """The assistant's next message, piece by piece. Raises as `chat` does."""
        pieces: SimpleQueue[Piece] = SimpleQueue()
        return Stream(self, self.write([self.conversation(messages)], None, options, pieces.put), pieces)

    def stream_batch(self, prompts: Sequence[Prompt], *, n: int | None = None, **options: Any) -> BatchStream:
        """Continue several texts together, piece by piece. Raises as `generate` does."""
        pieces: SimpleQueue[Piece] = SimpleQueue()
        return BatchStream(self, self.write(prompts, n, options, pieces.put), pieces)

    def logits(self, tokens: Sequence[int], last: int | None = None) -> npt.NDArray[np.float32]:
        """The logits after each of `tokens`, or after the last so many: (n, vocab_size) float32.

        Raises ValueError for bad ids, or if the texts being written leave no memory for it.
        """
        n, most = len(tokens), self.context
        if not 1 <= n <= most:
            raise ValueError(f"logits() takes 1 to {most} tokens, not {n}")
        return self.engine.call(lambda: self.engine.engine.logits(list(tokens), last, self._span(n)))

    def score(
        self,
        prompt: str | Sequence[int],
        *,
        top: int = 0,
        stride: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Score:
        """What the model makes of a text: the log-probability of each token given those before it, its rank, and the
        entropy there, alone or beside others the same. Texts that are being written wait for each of its passes.

        top       how many of the likeliest tokens are told at each place
        stride    a text longer than the context is read in passes that each begin so many tokens behind the one before:
                  a token is judged with all tokens before it, or at least with context - stride; half the context
                  unless given
        progress  called behind each pass with how many tokens are judged, and how many there are

        Raises ValueError for an empty text, bad ids and options out of range, and if the texts being written leave no
        memory for it.
        """
        tokens = self._tokens(prompt) if isinstance(prompt, str) else list(prompt)
        context, width = self.context, self.config.vocab_size
        stride = max(1, context // 2) if stride is None else stride
        for name, value, least, most in (("top", top, 0, width), ("stride", stride, 1, context)):
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        if not tokens:
            raise ValueError("there is nothing to score; give at least one token")
        if not 0 <= min(tokens) <= max(tokens) < width:
            alien = next(token for token in tokens if not 0 <= token < width)
            raise ValueError(f"the text has token {alien}, outside the vocabulary of {width}")
        found = [TokenScore(tokens[0])]

        def read(begin: int, end: int, first: int) -> None:
            engine = self.engine.engine
            with closing(engine.read(tokens[begin:end], first - 1 - begin, self._span(end - begin))) as passed:
                for at, rows in passed:
                    for row, token in zip(rows, tokens[begin + at + 1 : end], strict=False):
                        found.append(TokenScore(token, *judge(row, token, top)))

        for window in windows(len(tokens), context, stride):
            self.engine.call(functools.partial(read, *window))
            if progress:
                progress(len(found), len(tokens))
        return Score(tuple(found))

    def info(self) -> dict[str, Any]:
        """Facts about the model, and how it is held here."""
        c = self.config
        source = self.source
        files = source.file.paths if isinstance(source, GgufSource) else sorted(self.path.glob("*.safetensors"))
        weights = list(self._weights.values())
        published = Counter(weight.format for weight in weights)
        quantization = None if isinstance(self.source, GgufSource) else self.source.quantization
        held: dict[str, set[str]] = {}
        for weight in weights:
            if len(weight.shape) == 2:
                held.setdefault(weight.format, set()).add(self.runner.weights.format(weight))
        return {
            "file": str(self.path),
            "file_bytes": sum(file.stat().st_size for file in files),
            "family": self.source.config["model_type"],
            **({"quantization": quantization} if quantization else {}),
            "parameters": sum(int(np.prod(w.shape)) for w in weights),
            "layers": c.num_hidden_layers,
            "hidden_size": c.hidden_size,
            "attention": f"{c.num_attention_heads} query heads, {c.num_key_value_heads} key heads of {c.head_dim}",
            "context": c.max_position_embeddings,
            "vocabulary": c.vocab_size,
            "chat_template": self.template is not None,
            "formats": {name: f"{count} tensors" for name, count in sorted(published.items())},
            "held_as": {name: ", ".join(sorted(formats)) for name, formats in sorted(held.items())},
            "activations": self.activations,
            "kv_cache_dtype": self.kv_cache_dtype,
            "packed_bytes": self.runner.weights.arena.bytes,
            "mapped": self.runner.weights.mapped,
            "kv_bytes_per_token": self.runner.kv.block_bytes // self.runner.block_size,
            "kv_tokens": self.runner.room() * self.runner.block_size,
            **({"state_bytes_per_text": state_bytes(c), "states": self.runner.states()} if c.state_sizes else {}),
            **({"draft": str(self.draft.path)} if self.draft is not None else {}),
            "threads": self.runner.pool.threads,
        }

    @functools.cached_property
    def _ends(self) -> frozenset[int]:
        """The tokens that end a text."""
        if self.vocabulary is not None:
            return self.vocabulary.eos_ids
        from quickbrown.text.files import ends_from_folder

        return frozenset(ends_from_folder(self.path))

    # -- from prompts to rows ----------------------------------------------------------------------------------------

    @property
    def context(self) -> int:
        """The most tokens that a text can have: by the model's positions, and by the memory for keys and values."""
        return min(self.longest, self.runner.room() * self.runner.block_size)

    @property
    def longest(self) -> int:
        """The most tokens that a text can have by the model's positions."""
        positions = self.config.max_position_embeddings
        return min((rope.reach(positions) for rope in self.model.ropes), default=positions)

    def _span(self, length: int) -> int:
        """What of a text's final length the model's rotations depend on (models/rope.py)."""
        return span_of(self.model.ropes, length)

    def _all(self, prompts: Sequence[Prompt], n: int | None, options: dict[str, Any]) -> list[Any]:
        """What is written of each prompt: a Completion, or n in a list."""
        last: SimpleQueue[Piece] = SimpleQueue()
        reader = Reader(self, self.write(prompts, n, options, ends(last.put)))
        try:
            for _ in reader.texts:
                last.get()
        finally:
            reader.close()
        return grouped(reader.checked(), n)

    def write(
        self,
        prompts: Sequence[Prompt],
        n: int | None,
        options: dict[str, Any],
        out: Out,
        shown: frozenset[int] = frozenset(),
    ) -> list[Text]:
        """Begin to write: a row for each sample of each prompt, in order, whose pieces go to `out`.

        shown  special tokens whose text is a part of what is written

        What the other methods are made of. Raises as they do; then nothing is written.
        """
        if not isinstance(prompts, (list, tuple)):
            raise TypeError(f"prompts must be a string or a list of prompts, not {type(prompts).__name__}")
        if "n" in options:
            raise TypeError("a stream of one text takes no n; stream_batch() does")
        params = SamplingParams.from_options(options)
        samples = 1 if n is None else n
        if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= MOST_SAMPLES:
            raise ValueError(f"n must be a whole number from 1 to {MOST_SAMPLES:,}, not {n!r}")
        ids = [self._tokens(prompt) for prompt in prompts]
        limited = [self.limited(params, len(tokens), "max_new_tokens" in options) for tokens in ids]
        # what draws nothing takes no number of the default seed's calls
        seed = 0 if params.temperature == 0 and params.seed is None else params.seed
        seeds = row_seeds(seed, len(ids), samples)
        ends = self._ends if params.eos_token_id is None else frozenset(several(params.eos_token_id))
        ends = frozenset() if params.ignore_eos else ends
        named = [self.tokenizer.special_id(text) for text in params.stop]
        stops = ends.union(token for token in named if token is not None)
        return self.begin(
            [
                self._job(tokens, its_params, its_seeds, ends, stops, shown)
                for tokens, its_params, its_seeds in zip(ids, limited, seeds, strict=True)
            ],
            out,
        )

    def _job(
        self,
        tokens: list[int],
        params: SamplingParams,
        seeds: tuple[int, ...],
        ends: frozenset[int],
        stops: frozenset[int],
        shown: frozenset[int],
    ) -> Job:
        """What is to be done with one prompt; what changes its logits becomes a processor.

        ends, stops  the tokens that end a text by the model's own rules, and all that do
        shown        as Job has it
        """
        said = params
        if params.bad_words:
            spelled = [self.tokenizer.encode(before + word) for word in params.bad_words for before in ("", " ")]
            said = dataclasses.replace(params, bad_words_ids=(*(params.bad_words_ids or ()), *map(tuple, spelled)))
        filtered = params.temperature > 0 and processors.filters_beyond_native(params)
        chain = processors.build(
            said,
            prompt=tokens,
            new_tokens=params.max_new_tokens,
            eos_ids=ends,
            vocab_size=self.config.vocab_size,
            warpers=filtered,
        )
        if filtered:  # then all filters stand in the chain
            params = dataclasses.replace(params, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
        return Job(
            prompt=tokens,
            params=params,
            seeds=seeds,
            stop_tokens=stops,
            shown=shown,
            processor=Chain(chain, self.config.vocab_size) if chain else None,
        )

    def begin(self, jobs: Sequence[Job], out: Out) -> list[Text]:
        """Begin to write: a row for each seed of each job, in order, whose pieces go to `out`.

        The way in for callers who have decided everything themselves. Raises TooLong and ValueError; then nothing is
        written.
        """
        texts: list[Text] = []
        requests = []
        for job in jobs:
            request = Request(
                id=self.engine.new_id(),
                prompt=tuple(job.prompt),
                decoder=self._decoder(job),
                params=job.params,
                seeds=job.seeds,
                stop_tokens=job.stop_tokens,
                processor=job.processor,
                span=self._span(len(job.prompt) + job.params.max_new_tokens),
            )
            own = [
                Text(self.engine, request, sample, len(texts) + sample, self._pieces(job), out, job.watch)
                for sample in range(len(job.seeds))
            ]
            texts += own
            requests.append((request, Texts(own)))
        self.engine.submit(requests)
        return texts

    def _decoder(self, job: Job) -> Writer:
        """What makes text of a prompt's rows."""
        if job.params.prompt_lookup_num_tokens:
            return Lookup(job.params.prompt_lookup_num_tokens, job.params.max_matching_ngram_size, self.gain)
        own = (self.draft, MOST) if self.draft is not None else None
        if (asked := job.draft or own) is None:
            return self.plain
        return self.follow(*asked)

    def follow(self, draft: LLM, most: int = MOST) -> Drafted:
        """What writes with the guesses of another model, up to so many a step.

        Raises ValueError for a model that cannot be a draft of this one.
        """
        if (known := self._drafts.get(draft)) is None:
            if not same_vocabulary(self, draft):
                raise ValueError(
                    f"{draft.path.name} cannot be a draft of {self.path.name}: its vocabulary is another one; "
                    "take a smaller model of the same family"
                )
            runner = draft.runner.beside(self.runner)
            span = functools.partial(span_of, draft.model.ropes)
            known = self._drafts[draft] = Draft(runner, self.config.vocab_size, draft.longest, span), {}
        guesser, by_most = known
        if most not in by_most:
            share = draft.runner.weights.arena.bytes / self.runner.weights.arena.bytes
            pays = DraftGain(self.gain, most, min(1.0, share), bool(self.config.state_sizes))
            by_most[most] = Drafted(guesser, most, pays)
        return by_most[most]

    def _pieces(self, job: Job) -> Pieces | NoPieces:
        if self.vocabulary is None and not job.params.stop:
            return NoPieces()
        return Pieces(self.tokenizer, job.params.stop, shown=job.shown)

    def conversation(self, messages: Messages) -> list[int]:
        """The token ids of a conversation, up to where the assistant's next message begins. Raises as `chat` does."""
        return self.tokenizer.encode(self.written_down(messages))

    def written_down(self, messages: Messages, continue_final_message: bool = False) -> str:
        """A conversation as the model's chat template writes it, up to where the assistant's next message begins.

        continue_final_message  end in the middle of the last message instead, so that it is gone on with

        Raises as `chat` does.
        """
        if self.template is None:
            raise ValueError(f"{self.path.name} has no chat template; use generate() with a prompt of your own")
        return self.template.render(messages, continue_final_message=continue_final_message)

    def _tokens(self, prompt: Prompt) -> list[int]:
        """The tokens of a text to continue, or of a conversation to answer."""
        if isinstance(prompt, str):
            if not (tokens := self.tokenizer.encode(prompt, bos=True)):
                raise ValueError("the prompt is empty; give at least one character to continue")
            return tokens
        if not isinstance(prompt, (list, tuple)):
            kind = type(prompt).__name__
            raise TypeError(f"a prompt must be a string, a list of token ids or a list of messages, not {kind}")
        if prompt and all(type(token) is int for token in prompt):
            return list(prompt)
        return self.conversation(prompt)

    def limited(self, params: SamplingParams, prompt: int, chosen: bool) -> SamplingParams:
        """The parameters of a prompt of that many tokens. A length that nobody chose ends with the context."""
        limit, whole = self.context, self.longest
        if params.max_length is not None:
            if params.max_length <= prompt:
                raise TooLong(
                    f"the prompt has {prompt} tokens and max_length={params.max_length} counts them too, "
                    "so nothing could be written; give max_new_tokens instead"
                )
            chosen = True
            params = dataclasses.replace(params, max_new_tokens=params.max_length - prompt, max_length=None)
        if params.min_length - prompt > params.max_new_tokens:
            raise ValueError(
                f"min_length is {params.min_length}, but {prompt} tokens of prompt and max_new_tokens, "
                f"{params.max_new_tokens}, make {prompt + params.max_new_tokens}; make one smaller or the other larger"
            )
        room = limit - prompt
        hint = f" (the model could hold {whole} with more memory=)" if limit < whole else ""
        if room < 1:
            raise TooLong(f"the prompt has {prompt} tokens and the context holds {limit}{hint}; shorten it")
        if params.max_new_tokens <= room:
            return params
        if chosen:
            raise TooLong(
                f"a prompt of {prompt} tokens leaves room for {room} new ones in a context of {limit}{hint}; "
                f"lower max_new_tokens to that"
            )
        return dataclasses.replace(params, max_new_tokens=room)


def open_source(path: Path) -> GgufSource | SafetensorsSource:
    """The weights in a file or a folder. Raises BadFile."""
    if not path.is_dir():
        return GgufSource(path)
    from quickbrown.weights.safetensors import SafetensorsSource

    return SafetensorsSource(path)


def configured(source: Source) -> Config:
    """What the family of a source's model reads of its config."""
    return of_model_type(source.config["model_type"]).configure(source.config)


def span_of(ropes: Sequence[Rope], length: int) -> int:
    """What of a text's final length a model's rotations depend on (models/rope.py)."""
    return max((rope.span(length) for rope in ropes), default=0)


def same_vocabulary(one: LLM, other: LLM) -> bool:
    """Whether token ids mean the same to two models. Those beyond what the smaller one knows are padding."""
    if one.vocabulary is None or other.vocabulary is None:
        return one.config.vocab_size == other.config.vocab_size
    known = min(one.vocabulary.vocab_size, other.vocabulary.vocab_size)
    return all(one.vocabulary.token(token) == other.vocabulary.token(token) for token in range(known))


def state_bytes(config: Config) -> int:
    """What the states of one text take: float32, each in vectors of 16."""
    return 4 * sum(-(-size // 16) * 16 for size in config.state_sizes)


def deep(config: Config, weights: Sequence[Weight]) -> float:
    """The depth in a text at which reading a token takes about twice as long as at its beginning: where attention takes
    as long as the linears do. Of what it multiplies, a number takes about as long as four of theirs
    (`benchmarks/mixed.py`)."""
    linear = sum(math.prod(weight.shape) for weight in weights if len(weight.shape) > 1)
    linear -= config.vocab_size * config.hidden_size  # the embedding, or the head, which few tokens of a prompt need
    attended = config.num_attention_heads * sum(key + value for _, key, value in config.kv_layers)
    return max(64, linear // (4 * attended)) if attended else math.inf


def fitting(memory: int, block_bytes: int, place_bytes: int) -> int:
    """How many blocks fit in so many bytes, with the places for states that go with them."""
    left = memory - place_bytes * places(0)
    if left < 0:
        return 0
    groups, rest = divmod(left, 16 * block_bytes + place_bytes)  # 16 blocks and the place that comes with them
    return 16 * groups + (min(15, rest // block_bytes) if block_bytes else 15)


def place(path: Path, dtype: str, quantize: str | None) -> Kept:
    """Where the weights of a file or folder may be kept, packed. Made before it is opened."""
    held = quantize or ("as published" if dtype == "auto" else dtype)
    if not path.is_dir():
        names = hub.part_names(path.name)
        if len(names) == 1:
            return Kept(path, f"weights, {held}", LAYOUT)
        return Kept(path.parent, f"weights of {names[0]}, {held}", LAYOUT, [glob.escape(name) for name in names])
    from quickbrown.weights.safetensors import FILES

    return Kept(path, f"weights, {held}", LAYOUT, FILES)


def holding(quantize: str | None, model: Decoder) -> Callable[[Weight], str] | None:
    """In which format each weight is to be held; None: as it is."""
    if quantize is None:
        return None
    from quickbrown.quant import quantize as encoding

    return encoding.holding(quantize, model.head, model.embedding)


def several(value: int | Sequence[int]) -> Sequence[int]:
    return [value] if isinstance(value, int) else value


def split(messages: Messages | Sequence[Messages]) -> tuple[Sequence[Messages], bool]:
    """The conversations, and whether it is a list of them and not one."""
    if isinstance(messages, (list, tuple)) and messages and isinstance(messages[0], (list, tuple)):
        return cast("Sequence[Messages]", messages), True
    return [cast("Messages", messages)], False


def grouped(rows: list[Completion], n: int | None) -> list[Any]:
    """Rows by prompt: one, or n in a list."""
    return list(rows) if n is None else [rows[i : i + n] for i in range(0, len(rows), n)]


def parse_bytes(size: int | str) -> int:
    """A number of bytes: 1000000, "1000000", "2GB", "1.5 GiB". Raises ValueError for anything else."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    found = (
        re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?) *(?:([KMGT])(i)?)?B?", size, re.I) if isinstance(size, str) else None
    )
    if found is None:
        raise ValueError(f'memory must be a number of bytes, or a string like "2GB" or "512MiB", not {size!r}')
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" KMGT".index(unit.upper()) if unit else 0))


class _Weights(Mapping[str, Weight]):
    """Weights by name, each read once, so that a tied weight is one object; given back once packed."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._read: dict[str, Weight] = {}
        self._names: dict[int, str] = {}
        self._progress: Callable[[str, int, int], None] | None = None

    def __getitem__(self, name: str) -> Weight:
        if name not in self._read:
            self._read[name] = weight = self.source.get(name)
            self._names[id(weight)] = name
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.source.names())

    def __len__(self) -> int:
        return len(self.source.names())

    def take(self, name: str, *shape: int) -> Weight:
        """What a model asks for; the source has checked all names and shapes."""
        return self[name]

    def read(self) -> list[Weight]:
        """Those that were asked for."""
        return list(self._read.values())

    def watch(self, progress: Callable[[str, int, int], None] | None) -> None:
        """Tell of each weight that begins to be packed, out of all that were asked for."""
        self._progress = progress
        self._left = {name: size_of(weight) for name, weight in self._read.items()} if progress else {}
        self._total = sum(self._left.values())

    def release(self, weight: Weight) -> None:
        while isinstance(weight, PartWeight) and id(weight) not in self._names:
            weight = weight.whole
        name = self._names[id(weight)]
        self.source.release(name)
        if self._progress and self._left.pop(name, 0):
            self._progress("loading", self._total - sum(self._left.values()), self._total)


def size_of(weight: Weight) -> int:
    """Bytes of its numbers as they were published."""
    return math.prod(weight.shape) * math.ceil(FORMATS[weight.format].bits) // 8 if weight.format in FORMATS else 0
