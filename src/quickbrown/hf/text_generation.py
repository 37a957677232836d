"""TextGenerationPipeline: texts and conversations in, records of what is written out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quickbrown.generation.seeds import hashed, row_seeds
from quickbrown.hf.arrays import to_numpy
from quickbrown.hf.model import PreTrainedModel
from quickbrown.hf.pipeline_options import Options, ReturnType, split_options
from quickbrown.hf.tokenizer import PreTrainedTokenizer
from quickbrown.types import SamplingParams

# Where neither the call, nor its generation config, nor the model's says anything; do_sample is True then.
NEW_TOKENS = 256
TEMPERATURE = 0.7

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Prompt:
    """What was given, its token ids, and whether what is written joins on to its last text."""

    given: Any
    ids: list[int]
    joins: bool


class TextGenerationPipeline:
    """A model and its tokenizer. Made by `pipeline("text-generation", ...)`.

    Keywords, here as defaults and in a call, are the fields of `Options` and the arguments of `model.generate`. Unless
    the call, its generation_config or the model's says otherwise, 256 tokens are drawn at temperature 0.7.
    """

    task = "text-generation"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizer, **options: Any) -> None:
        split_options(options)
        self.model = model
        self.tokenizer = tokenizer
        self.device = "cpu"
        self._defaults = options

    def __call__(self, text_inputs: Any, **options: Any) -> Any:
        """Records of what is written: dicts with `generated_text`, or `generated_token_ids`.

        text_inputs  a text, or a conversation (a list of {"role": ..., "content": ...}), gives a list of its records,
                     num_return_sequences of them; a list or tuple of texts and conversations gives a list of such
                     lists; any other iterable an iterator over such lists, which reads on as it is read

        The text of a conversation's record is the conversation with the assistant's message added, or, with
        return_full_text=False, that message's content. Of a generate() that returns a dict, each record gets what
        there is for it besides.

        Raises UnknownOption, ValueError and TypeError for what cannot be honoured, and what `generate` raises.
        """
        how, arguments = split_options({**self._defaults, **options})
        arguments = self._arguments(how, arguments)
        if isinstance(text_inputs, str) or is_conversation(text_inputs):
            return self._all([text_inputs], how, arguments)[0]
        several = any(hasattr(text_inputs, name) for name in ("__iter__", "__getitem__"))
        if isinstance(text_inputs, (Mapping, bytes)) or not several:
            kind = type(text_inputs).__name__
            raise TypeError(f"a pipeline takes a text, a conversation (a list of messages), or several, not {kind}")
        if isinstance(text_inputs, (list, tuple)):
            return self._all(text_inputs, how, arguments)
        if arguments.get("streamer") is not None:
            raise ValueError("a streamer follows one batch; give the inputs as a list")
        return self._lazily(iter(text_inputs), how, arguments)

    def _all(self, inputs: Sequence[Any], how: Options, arguments: dict[str, Any]) -> list[Records]:
        size = how.batch_size or max(1, len(inputs))
        if len(inputs) > size and arguments.get("streamer") is not None:
            raise ValueError(f"a streamer follows one batch, and batch_size={size} makes several; leave it out")
        seeds = self._seeds(arguments, len(inputs))
        batches = (inputs[start : start + size] for start in range(0, len(inputs), size))
        return [records for batch in batches for records in self._write(batch, how, arguments, seeds)]

    def _lazily(self, inputs: Iterator[Any], how: Options, arguments: dict[str, Any]) -> Iterator[Records]:
        seeds = self._seeds(arguments, None)
        while batch := list(itertools.islice(inputs, how.batch_size or 1)):
            yield from self._write(batch, how, arguments, seeds)

    def _write(
        self, inputs: Sequence[Any], how: Options, arguments: dict[str, Any], seeds: Iterator[int] | None
    ) -> list[Records]:
        """The records of each input; all are written together, each with the next seed."""
        prompts = [self._prompt(given, how, arguments) for given in inputs]
        own = None if seeds is None else list(itertools.islice(seeds, len(prompts)))
        written: list[Records] = [[] for _ in prompts]
        by_length: dict[int, list[int]] = {}  # how many tokens to write -> of which prompts
        for i, prompt in enumerate(prompts):
            by_length.setdefault(self._new_tokens(len(prompt.ids), arguments), []).append(i)
        if len(by_length) > 1 and arguments.get("streamer") is not None:
            raise ValueError(
                "these prompts leave room for different numbers of tokens, and a streamer follows texts of one; "
                "pass max_new_tokens"
            )
        for new, which in by_length.items():
            chosen = {**arguments, "max_length": None, "max_new_tokens": new}
            if own is not None:
                chosen["seed"] = [own[i] for i in which]
            for i, records in zip(which, self._together([prompts[i] for i in which], how, chosen), strict=True):
                written[i] = records
        return written

    def _together(self, prompts: Sequence[Prompt], how: Options, arguments: dict[str, Any]) -> list[Records]:
        """The records of each prompt, of one call of generate()."""
        width = max(len(prompt.ids) for prompt in prompts)
        pad = self._said("pad_token_id", arguments)
        ids = np.full((len(prompts), width), pad, np.int64)
        mask = np.zeros((len(prompts), width), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.ids) :] = prompt.ids
            mask[row, width - len(prompt.ids) :] = 1
        asked = self._said("return_dict_in_generate", arguments)
        output = self.model.generate(ids, attention_mask=mask, **{**arguments, "return_dict_in_generate": True})
        sequences, logprobs = to_numpy(output.sequences), to_numpy(output.logprobs)
        samples = len(sequences) // len(prompts)
        records = []
        for row, sequence in enumerate(sequences):
            prompt = prompts[row // samples]
            new = sequence[width:].tolist()
            # What a stop string has cut a token to is encoded anew, and has no log-probability.
            length = max(int((~np.isnan(logprobs[row])).sum()), len(new) - trailing(new, pad))
            record = self._record(prompt, new[:length], how)
            records.append(record | (besides(output, row, length) if asked else {}))
        return [records[start : start + samples] for start in range(0, len(records), samples)]

    def _arguments(self, how: Options, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of generate(), with what nobody has said filled in; of the length see `_wanted`."""
        arguments = dict(arguments)
        if how.stop_sequence is not None:
            if arguments.get("stop_strings") is not None:
                raise ValueError("stop_sequence and stop_strings are one argument under two names; give stop_strings")
            stop = how.stop_sequence
            arguments["stop_strings"] = [stop] if isinstance(stop, str) else list(stop)
        for name in ("output_scores", "output_logits"):
            if arguments.get(name) and not self._said("return_dict_in_generate", arguments):
                raise ValueError(f"{name}=True has no effect without return_dict_in_generate=True; pass that too")
        if how.max_length is not None:
            arguments["max_length"] = how.max_length
        if self._said("pad_token_id", arguments) is None:
            arguments["pad_token_id"] = self._pad()
        if "do_sample" not in arguments and self._said("do_sample", arguments) is None:
            arguments["do_sample"] = True
        drawn = self._said("do_sample", arguments)
        if drawn and "temperature" not in arguments and self._said("temperature", arguments) is None:
            arguments["temperature"] = TEMPERATURE
        return arguments

    def _sources(self, arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Who says how to write, the first before the others: the call, its generation config, the model's."""
        config = arguments.get("generation_config")
        return [arguments, *([] if config is None else [vars(config)]), vars(self.model.generation_config)]

    def _said(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What is said of a field; None if nobody says anything."""
        if name in arguments:  # a None, too, is meant
            return arguments[name]
        values = (source.get(name) for source in self._sources(arguments))
        return next((value for value in values if value is not None), None)

    def _wanted(self, length: int, arguments: Mapping[str, Any]) -> tuple[int, bool]:
        """How many tokens to write after a prompt of so many, and whether the caller said so."""
        sources = self._sources(arguments)
        for source in sources:
            new, whole = source.get("max_new_tokens"), source.get("max_length")
            if new is None and whole is not None:
                new = whole - length
                if new < 1:
                    raise ValueError(
                        f"max_length={whole} counts the prompt too, and it has {length} tokens; pass max_new_tokens"
                    )
            if new is not None:
                return int(new), source is not sources[-1]
        return NEW_TOKENS, False

    def _new_tokens(self, length: int, arguments: Mapping[str, Any]) -> int:
        """How many tokens to write after a prompt of so many. A number that no caller chose ends with the context."""
        new, chosen = self._wanted(length, arguments)
        room = self.model.llm.longest - length
        return new if chosen or room < 1 else min(new, room)  # generate() refuses what does not fit

    def _seeds(self, arguments: Mapping[str, Any], rows: int | None) -> Iterator[int] | None:
        """The seed of each prompt: of all together, or, of an unknown number, of each as if it came alone.

        So a text is the same whatever the batch_size. None if nothing is drawn.
        """
        seed = SamplingParams(seed=arguments.get("seed")).seed
        if seed is None and not self._said("do_sample", arguments):
            return None
        if rows is not None:
            return (own for (own,) in row_seeds(seed, rows, 1))
        if seed is None:
            return (row_seeds(None, 1, 1)[0][0] for _ in itertools.count())
        return (hashed(seed, 0, row) for row in itertools.count()) if isinstance(seed, int) else iter(seed)

    def _prompt(self, given: Any, how: Options, arguments: Mapping[str, Any]) -> Prompt:
        """The token ids of a text or a conversation."""
        extra = dict(how.tokenizer_encode_kwargs or {})
        joins: bool | str = True
        if how.truncation is not None:
            extra = given_only({"truncation": how.truncation, "max_length": how.max_length}) | extra
        if isinstance(given, str):
            for name in ("tools", "documents", "continue_final_message"):
                if getattr(how, name) is not None:
                    raise ValueError(f"{name} is for conversations, and a text was given")
            if how.add_special_tokens is not None:
                extra = {"add_special_tokens": how.add_special_tokens} | extra
            ids = self.tokenizer((how.prefix or "") + given, **extra)["input_ids"] or self._bos()
        elif is_conversation(given):
            if how.prefix is not None:
                raise ValueError("prefix is for texts, and a conversation was given; begin it with a system message")
            joins = given[-1].get("role") == "assistant"
            if how.continue_final_message is not None:
                joins = how.continue_final_message
            ids = self.tokenizer.apply_chat_template(
                list(given),
                tools=how.tools,
                documents=how.documents,
                add_generation_prompt=not joins,
                continue_final_message=joins,
                return_dict=True,
                **extra,
            )["input_ids"]
        else:
            raise TypeError(f"an input must be a text or a conversation (a list of messages), not {given!r}")
        if how.handle_long_generation == "hole":
            ids = ids[-self._room(len(ids), arguments) :]
        return Prompt(given, list(ids), bool(joins))

    def _bos(self) -> list[int]:
        """What an empty text begins with."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            bos = self.model.generation_config.bos_token_id
        if bos is None:
            raise ValueError("the text is empty, and the model has no token that begins one; give at least a character")
        return [bos]

    def _pad(self) -> int:
        """What stands before shorter prompts in a batch; only a caller's own processors and criteria ever see it."""
        ends = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token for token in ends if token is not None), 0)

    def _room(self, length: int, arguments: Mapping[str, Any]) -> int:
        """How many tokens of a prompt of so many the context can hold beside what is to be written after it."""
        most = self.model.llm.longest
        new, _ = self._wanted(length, arguments)
        if new >= most:
            raise ValueError(f"handle_long_generation='hole' cannot make room for {new} new tokens in {most}")
        return most - new

    def _record(self, prompt: Prompt, new: list[int], how: Options) -> dict[str, Any]:
        if how.wanted is ReturnType.TENSORS:
            return {"generated_token_ids": prompt.ids + new}
        text = self._text(prompt.ids if prompt.joins else [], new, how)
        if how.wanted is ReturnType.NEW_TEXT:
            return {"generated_text": text}
        if isinstance(prompt.given, str):
            return {"generated_text": prompt.given + text}
        if prompt.joins:
            *earlier, last = prompt.given
            return {"generated_text": [*earlier, {**last, "content": last["content"] + text}]}
        return {"generated_text": [*prompt.given, {"role": "assistant", "content": text}]}

    def _text(self, before: list[int], new: list[int], how: Options) -> str:
        """The text of tokens behind others, with the blank between, which some vocabularies drop at a beginning."""
        kept: dict[str, Any] = {"skip_special_tokens": how.skip_special_tokens is not False}
        kept |= given_only({"clean_up_tokenization_spaces": how.clean_up_tokenization_spaces})
        start = str(self.tokenizer.decode(before, **kept))
        whole = str(self.tokenizer.decode(before + new, **kept))
        return whole[len(start) :] if whole.startswith(start) else str(self.tokenizer.decode(new, **kept))


def is_conversation(given: Any) -> bool:
    """Whether it is a list of messages, and not a text or several of either."""
    return isinstance(given, (list, tuple)) and len(given) > 0 and isinstance(given[0], Mapping)


def trailing(tokens: Sequence[int], token: int) -> int:
    """How often a token stands at the end."""
    return sum(1 for _ in itertools.takewhile(lambda last: last == token, reversed(tokens)))


def besides(output: Any, row: int, length: int) -> dict[str, Any]:
    """What generate() returned for one row besides its tokens, of each token where there is one for each."""
    found: dict[str, Any] = {}
    for name, values in output.items():
        if name in ("finish_reasons", "stopped_by"):
            found[name.removesuffix("s")] = values[row]
        elif name == "logprobs":
            found[name] = to_numpy(values)[row, :length].tolist()
        elif name != "sequences":
            found[name] = [to_numpy(step)[row].tolist() for step in values[:length]]
    return found


def given_only(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}
