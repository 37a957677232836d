"""One call of `generate`, from a resolved config to rows of the caller's kind."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.generation import processors
from quickbrown.generation.seeds import row_seeds
from quickbrown.hf.arrays import as_kind
from quickbrown.hf.generation_config import GenerationConfig, new_tokens
from quickbrown.hf.inputs import Prompts
from quickbrown.hf.outputs import GenerateDecoderOnlyOutput
from quickbrown.hf.rows import Criteria, Failure, Processors
from quickbrown.llm import LLM, MOST_SAMPLES, Job
from quickbrown.streams import Reader, Text, Watch
from quickbrown.text.pieces import Pieces
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.types import Finish, SamplingParams


class Call:
    """One call of `generate`, from a resolved config to rows."""

    def __init__(
        self,
        llm: LLM,
        config: GenerationConfig,
        given: Prompts,
        eos: tuple[int, ...],
        pad: int | None,
        streamed: bool,
        assistant: LLM | None = None,
    ) -> None:
        self.streamed, self.assistant = streamed, assistant
        self.llm, self.config, self.given, self.eos = llm, config, given, eos
        self.pad = 0 if pad is None else pad
        self.core = self.llm.vocabulary
        self.special_stops: dict[int, str] = {}  # stop strings that are a token's text
        self.samples: int = config.num_return_sequences
        self.failure = Failure()
        self.jobs: list[Job] = []
        # A row and its tokens, or None when it has ended.
        self.queue: SimpleQueue[tuple[int, list[int] | None]] = SimpleQueue()

    def prepare(
        self,
        own: Sequence[Any],
        criteria: Sequence[Any],
        prefix_fn: Callable[[int, Any], Any] | None,
        chosen: bool,
        seed: int | tuple[int, ...] | list[int] | None,
    ) -> None:
        """Everything that can be refused is refused here, before anything is computed."""
        config, width = self.config, self.given.ids.shape[1]
        for name, functions in (("logits_processor", own), ("stopping_criteria", criteria)):
            if not isinstance(functions, (list, tuple)) or not all(map(callable, functions)):
                raise TypeError(f"{name} must be a list of callables, not {functions!r}")
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise ValueError(f"num_return_sequences must be from 1 to {MOST_SAMPLES:,}, not {self.samples}")
        count = new_tokens(config, width)
        stop = (config.stop_strings,) if isinstance(config.stop_strings, str) else tuple(config.stop_strings or ())
        if stop and self.core is None:
            raise ValueError(f"stop_strings need a vocabulary, and there is no tokenizer.json in {self.llm.path}")
        for text in stop:
            if self.core is not None and (token := self.core.special_id(text)) is not None and token not in self.eos:
                self.special_stops[token] = text
        keep = frozenset(name for name in ("scores", "logits") if getattr(config, f"output_{name}"))
        # Filters run natively, behind the processors; here only if somebody wants to see what they leave, or a rare one
        # stands among them.
        warp = bool(config.do_sample) and ("scores" in keep or processors.filters_beyond_native(config))
        plain = not config.do_sample or warp
        params = SamplingParams(
            max_new_tokens=count,
            temperature=0.0 if not config.do_sample else 1.0 if warp else config.temperature,
            top_k=0 if plain else config.top_k,
            top_p=1.0 if plain else config.top_p,
            min_p=0.0 if plain else config.min_p or 0.0,
            max_time=config.max_time,
            stop=stop,
            logprobs=bool(config.return_dict_in_generate),
            # A caller's functions are asked about the text alone, not about what it might become.
            prompt_lookup_num_tokens=0 if own or prefix_fn or keep else config.prompt_lookup_num_tokens or 0,
            max_matching_ngram_size=config.max_matching_ngram_size or 2,
        )
        draft = None
        if self.assistant is not None:
            self.llm.follow(self.assistant)  # which refuses what cannot be one
            draft = None if own or prefix_fn or keep else (self.assistant, config.num_assistant_tokens)
        own_seed = SamplingParams(seed=tuple(seed) if isinstance(seed, list) else seed).seed  # which checks it
        if own_seed is None and not config.do_sample:
            own_seed = 0  # what draws nothing takes no number of the default seed's calls
        seeds = row_seeds(own_seed, len(self.given.ids), self.samples)
        for row, tokens in enumerate(self.given.tokens):
            processor = self.processors(row, tokens, count, own, prefix_fn, warp, keep)
            ends = (
                Criteria(criteria, self.given.ids[row], self.given.kind, processor, self.failure) if criteria else None
            )
            self.jobs.append(
                Job(
                    prompt=tokens,
                    params=self.llm.limited(params, len(tokens), chosen),
                    seeds=seeds[row],
                    stop_tokens=frozenset({*self.eos, *self.special_stops}),
                    processor=processor,
                    watch=self.watch(ends),
                    draft=draft,
                )
            )

    def processors(
        self,
        row: int,
        tokens: list[int],
        count: int,
        own: Sequence[Any],
        prefix_fn: Callable[[int, Any], Any] | None,
        warp: bool,
        keep: frozenset[str],
    ) -> Processors | None:
        """What changes the rows of a prompt, or None if nothing does and nobody looks."""
        given, kind = self.given.ids[row], "np" if self.given.kind == "list" else self.given.kind

        def allowed(batch: int, ids: npt.NDArray[np.int64]) -> Any:
            assert prefix_fn is not None
            return prefix_fn(row * self.samples + made.sample, as_kind(ids, kind))

        chain = processors.build(
            self.config,
            prompt=tokens,
            padding=len(given) - len(tokens),
            new_tokens=count,
            eos_ids=self.eos,
            vocab_size=self.llm.config.vocab_size,
            prefix_fn=None if prefix_fn is None else allowed,
            user=own,
            warpers=warp,
        )
        if not chain and not keep:
            return None
        width = self.llm.config.vocab_size
        made = Processors(chain, own, given, len(tokens), self.given.kind, keep, self.failure, width)
        return made

    def watch(self, criteria: Criteria | None) -> Watch | None:
        """Asks the criteria, and hands tokens to a streamer's side as soon as no stop string can take them back."""
        if not self.streamed:
            return None if criteria is None else lambda text, tokens: criteria(text)
        passed: dict[int, int] = {}  # row -> how many of its tokens

        def watch(text: Text, tokens: tuple[int, ...]) -> Finish | None:
            if text.certain and tokens[-1] not in self.special_stops:
                first, passed[text.row] = passed.get(text.row, 0), len(text.tokens)
                self.queue.put((text.row, text.tokens[first:]))
            return criteria(text) if criteria is not None else None

        return watch

    def write(self, streamer: Any) -> list[Text]:
        """Write all rows; the streamer, if there is one, is told in this thread what comes."""
        reader = Reader(self.llm, self.llm.begin(self.jobs, self.out))
        try:
            feed = None
            if streamer is not None:
                feed = Feed(streamer, np.repeat(self.given.ids, self.samples, 0), self.given.kind, self.pad)
            passed = [0] * len(reader.texts)
            left = len(passed)
            while left:
                row, tokens = self.queue.get()
                ended = tokens is None
                left -= ended
                if feed is not None:
                    tokens = self.kept(reader.texts[row])[passed[row] :] if tokens is None else tokens
                    passed[row] += len(tokens)
                    feed.put(row, tokens, ended)
        finally:
            reader.close()
        if self.failure.error is not None:
            raise self.failure.error
        reader.checked()
        return list(reader.texts)

    def out(self, piece: tuple[int, str, bool]) -> None:
        row, _, last = piece
        if last:
            self.queue.put((row, None))

    def kept(self, text: Text) -> list[int]:
        """The tokens of a text that has ended, cut before its stop string."""
        if text.finish is not None and text.finish.detail in self.special_stops:
            return text.tokens[:-1]
        if text.stopped is None:
            return text.tokens
        assert self.core is not None
        return cut(self.core, text.tokens, text.completion.text)

    def result(self, texts: Sequence[Text]) -> Any:
        """Rows of the caller's kind, or the output that was asked for."""
        rows = [self.kept(text) for text in texts]
        longest = max(map(len, rows))
        ids = np.repeat(self.given.ids, self.samples, 0)
        sequences = np.full((len(rows), ids.shape[1] + longest), self.pad, np.int64)
        sequences[:, : ids.shape[1]] = ids
        for row, tokens in zip(sequences, rows, strict=True):
            row[ids.shape[1] : ids.shape[1] + len(tokens)] = tokens
        kind = self.given.kind
        if not self.config.return_dict_in_generate:
            return as_kind(sequences, kind)
        logprobs = np.full((len(rows), longest), np.nan, np.float32)
        for i, (text, tokens) in enumerate(zip(texts, rows, strict=True)):
            known = (text.completion.logprobs or ())[: len(tokens)]
            logprobs[i, : len(known)] = known
        finishes = [text.completion.finish for text in texts]
        return GenerateDecoderOnlyOutput(
            sequences=as_kind(sequences, kind),
            logprobs=as_kind(logprobs, kind),
            finish_reasons=[str(finish.reason) for finish in finishes],
            stopped_by=[self.special_stops.get(finish.detail, finish.detail) for finish in finishes],  # type: ignore[arg-type]
            scores=self.steps("scores", rows, longest) if self.config.output_scores else None,
            logits=self.steps("logits", rows, longest) if self.config.output_logits else None,
        )

    def steps(self, name: str, rows: Sequence[list[int]], longest: int) -> tuple[Any, ...]:
        """What was kept of the rows, one array (N, vocabulary) a step."""
        steps = []
        behind = np.zeros(self.llm.config.vocab_size, np.float32)
        if name == "scores":
            behind[:] = -np.inf
            behind[self.pad] = 0
        for at in range(longest):
            found = []
            for row, tokens in enumerate(rows):
                processor = self.jobs[row // self.samples].processor
                assert isinstance(processor, Processors)
                found.append(processor.rows[name].get((row % self.samples, at), behind) if at < len(tokens) else behind)
            steps.append(as_kind(np.stack(found), "np" if self.given.kind == "list" else self.given.kind))
        return tuple(steps)


class Feed:
    """Tells a streamer what `generate` writes: the prompt first, then tokens.

    One that has `put_row` and `end_row` is told of each row as it comes. Another is told in step: (N,) tokens, pads for
    the rows that have ended.
    """

    def __init__(self, streamer: Any, ids: npt.NDArray[np.int64], kind: str, pad: int) -> None:
        self.streamer, self.kind, self.pad = streamer, "np" if kind == "list" else kind, pad
        self.by_row = hasattr(streamer, "put_row") and hasattr(streamer, "end_row")
        self.waiting: list[list[int]] = [[] for _ in ids]
        self.open = set(range(len(ids)))
        streamer.put(as_kind(ids, self.kind))

    def put(self, row: int, tokens: list[int], ended: bool) -> None:
        if self.by_row:
            if tokens:
                self.streamer.put_row(row, tokens)
            if ended:
                self.streamer.end_row(row)
            return
        self.waiting[row] += tokens
        if ended:
            self.open.discard(row)
        while any(self.waiting) and all(self.waiting[row] for row in self.open):
            step = [tokens.pop(0) if tokens else self.pad for tokens in self.waiting]
            self.streamer.put(as_kind(np.array(step, np.int64), self.kind))


def cut(core: Tokenizer, tokens: Sequence[int], text: str) -> list[int]:
    """Tokens whose text is `text`, the beginning of that of `tokens`: what a cut leaves of a token is spelled anew."""
    pieces, length, whole = Pieces(core), 0, 0
    for at, token in enumerate(tokens, 1):
        if piece := pieces.push([token]):
            if length + len(piece) > len(text):
                break
            length += len(piece)
            whole = at
    return [*tokens[:whole], *core.spell(text[length:])]


def arguments(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments, but self and those that it only collects."""
    named = inspect.signature(function).parameters.values()
    return [p.name for p in named if p.kind is not p.VAR_KEYWORD and p.name != "self"]


def refuse_absent(kwargs: dict[str, Any]) -> None:
    """Take arguments out that ask for nothing, and refuse those of features that are not there."""
    absent = {
        "assistant_tokenizer": "an assistant_model must have the model's own vocabulary",
        "negative_prompt_ids": "classifier-free guidance is not supported yet",
        "negative_prompt_attention_mask": "classifier-free guidance is not supported yet",
        "custom_generate": "code from a repository is never run, and the loop is not to be replaced",
        "past_key_values": "texts that begin alike reuse memory unasked; give the whole text as input_ids",
        "inputs_embeds": "texts are made of tokens here; give input_ids",
        "position_ids": "positions follow from attention_mask",
        "synced_gpus": "there are no GPUs to keep in step",
    }
    for name, why in absent.items():
        value = kwargs.pop(name, None)
        if value is not None and value is not False:
            raise ValueError(f"{name} is not honoured: {why}; leave it out")
    kwargs.pop("trust_remote_code", None)


def tuple_of(value: int | Sequence[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def follows_template(llm: LLM, tokens: Sequence[int]) -> bool:
    """Whether a prompt looks as the model's chat template writes one, if it has one."""
    core, template = llm.tokenizer, llm.template
    if template is None:
        return True
    ends = {*core.eos_ids, core.bos_id}
    if any(token in core.special_ids and token not in ends for token in tokens):
        return True
    with contextlib.suppress(ValueError):  # a template that does not take this message tells nothing
        message = [{"role": "user", "content": "\x00"}]
        opening = template.render(message, add_generation_prompt=True)
        text = core.decode(tokens, skip_special=False)
        before, _, after = opening.partition("\x00")
        marks = [mark.strip() for mark in (before, after) if mark.strip()]
        return any(mark.splitlines()[-1] in text for mark in marks) or not marks
    return True
