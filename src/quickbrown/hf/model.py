"""A loaded model, behind the methods that people know from transformers."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from quickbrown.hf import inputs as prompts
from quickbrown.hf.arrays import as_kind, kind_of, to_numpy
from quickbrown.hf.auto_config import AutoConfig, PretrainedConfig
from quickbrown.hf.generate import Call, arguments, follows_template, refuse_absent, tuple_of
from quickbrown.hf.generation_config import GenerationConfig, merge
from quickbrown.hf.outputs import CausalLMOutput
from quickbrown.llm import LLM
from quickbrown.types import UnknownOption

HINT = (
    "{name} is a chat model, but the prompt does not follow its chat template, so it may answer worse than it can. Use "
    "tokenizer.apply_chat_template(messages, add_generation_prompt=True), pipeline(...) with messages, or LLM.chat."
)


_PACKED = "weights are packed as they are loaded, and there are no tensors to hand out"
_DTYPE = "weights are packed as they are loaded; choose with from_pretrained(..., dtype=...)"
NOT_HERE = {
    "half": _DTYPE,
    "float": _DTYPE,
    "bfloat16": _DTYPE,
    "parameters": _PACKED,
    "named_parameters": _PACKED,
    "state_dict": _PACKED,
    "get_input_embeddings": _PACKED,
    "get_output_embeddings": _PACKED,
    "resize_token_embeddings": _PACKED,
    "save_pretrained": "writing models is not supported yet; the files it was loaded from are at model.llm.path",
    "push_to_hub": "writing models is not supported yet",
    "generate_batch": "every call of generate() joins what is being computed; call it from several threads",
    "set_attn_implementation": "there is one attention, which gives what all of them give",
}


class PromptHint(UserWarning):
    """A prompt works better if it is written another way. Given once for each model."""


class Device(str):
    """The device of a model where torch is not loaded: the string "cpu", with a `type`."""

    __slots__ = ()
    type = "cpu"


class PreTrainedModel:
    """A loaded model.

    llm                the `LLM` that does the work
    config             what config.json says
    generation_config  what generation_config.json says: the defaults of `generate`
    name_or_path       as it was asked for
    """

    def __init__(self, llm: LLM, name: str, generation_config: GenerationConfig | None = None) -> None:
        self.llm = llm
        self.name_or_path = name
        self.config: PretrainedConfig = AutoConfig.from_pretrained(llm.path)
        self.generation_config = generation_config or GenerationConfig.from_model(llm.path, llm.vocabulary)
        self._hinted = False

    def __getattr__(self, name: str) -> Any:
        why = f"; {NOT_HERE[name]}" if name in NOT_HERE else ""
        raise AttributeError(f"a {type(self).__name__} of quickbrown has no {name!r}{why}")

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> Any:
        """torch.device("cpu") where torch is loaded, else the string "cpu"."""
        torch = sys.modules.get("torch")
        return Device("cpu") if torch is None else torch.device("cpu")

    @property
    def dtype(self) -> Any:
        """What its float weights are held in: a torch dtype where torch is loaded, else its name."""
        held = {self.llm.runner.weights.format(w) for w in (self.llm.model.embedding, self.llm.model.head)}
        name = "bfloat16" if "bf16" in held else "float16" if "f16" in held else "float32"
        torch = sys.modules.get("torch")
        return name if torch is None else getattr(torch, name)

    def get_memory_footprint(self) -> int:
        """Bytes that its weights take."""
        return int(self.llm.runner.weights.arena.bytes)

    def eval(self) -> PreTrainedModel:
        """Itself: it is never anything else than ready to write."""
        return self

    def train(self, mode: bool = True) -> PreTrainedModel:
        if mode:
            raise ValueError("quickbrown writes with models and does not train them")
        return self

    def to(self, device: Any = None, dtype: Any = None) -> PreTrainedModel:
        """Itself, for "cpu". Raises ValueError for another device, or a dtype."""
        if dtype is not None or "float" in str(device):
            raise ValueError("weights are packed when they are loaded; choose with from_pretrained(..., dtype=...)")
        check_device(device)
        return self

    def cuda(self, device: Any = None) -> NoReturn:
        raise ValueError("quickbrown computes on the CPU; leave cuda() out")

    def can_generate(self) -> bool:
        return True

    def __repr__(self) -> str:
        c = self.llm.config
        size = f"{c.num_hidden_layers} layers of {c.hidden_size}, {self.get_memory_footprint() / 1e6:,.0f} MB"
        return f"<{self.config.model_type} model {self.name_or_path!r}: {size}>"

    # -- one pass ------------------------------------------------------------------------------------------------------

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        labels: Any = None,
        logits_to_keep: Any = 0,
        use_cache: bool | None = None,
        return_dict: bool = True,
        **unknown: Any,
    ) -> Any:
        """The logits of every position of (B, n) tokens, each row computed as if it were alone.

        labels          (B, n) token ids, or -100 where none is asked: gives the loss too
        logits_to_keep  the last so many positions, or an array of positions; 0 is all

        Raises ValueError for arguments out of range, UnknownOption for one that nothing honours.
        """
        for name in unknown:
            raise UnknownOption(name, arguments(PreTrainedModel.__call__))
        if use_cache:
            raise ValueError(
                "use_cache=True would hand out past_key_values; texts that begin alike share memory unasked"
            )
        ids, mask = prompts.split(input_ids, None, attention_mask)
        if ids is None:
            raise ValueError("input_ids are missing: a pass needs tokens")
        given = prompts.read(ids, np.ones_like(to_numpy(ids)) if mask is None else mask)
        wanted = positions(logits_to_keep, given.ids.shape[1])
        logits = np.zeros((len(given.ids), len(wanted), self.llm.config.vocab_size), np.float32)
        for row, (tokens, shown) in enumerate(zip(given.tokens, given.shown, strict=True)):
            place = np.cumsum(shown) - 1  # of each column among the row's own tokens
            first = place[wanted[shown[wanted]]].min(initial=len(tokens))
            if first < len(tokens):
                found = self.llm.logits(tokens, len(tokens) - int(first))
                seen = np.flatnonzero(shown[wanted])
                logits[row, seen] = found[place[wanted[seen]] - first]
        loss = None
        if labels is not None:
            if len(wanted) != given.ids.shape[1]:
                raise ValueError("labels need the logits of all positions; leave logits_to_keep out")
            loss = as_scalar(cross_entropy(logits, to_numpy(labels), given.shown), given.kind)
        kind = "np" if given.kind == "list" else given.kind
        out = CausalLMOutput(loss=loss, logits=as_kind(logits, kind))
        return out if return_dict else out.to_tuple()

    forward = __call__

    # -- writing -------------------------------------------------------------------------------------------------------

    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Any] | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Any], Any] | None = None,
        *,
        streamer: Any = None,
        tokenizer: Any = None,
        assistant_model: Any = None,
        seed: int | tuple[int, ...] | list[int] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue rows of token ids (B, n): numpy, torch or lists, and the result is of the same kind.

        inputs                    the ids, or what a tokenizer gave, mask included; also as input_ids and attention_mask
        generation_config         how to write; what it leaves open, `self.generation_config` says
        logits_processor          called for each row by itself, with ids (1, length) and scores (1, vocabulary)
        stopping_criteria         called for each row after each token, with ids (1, length)
        prefix_allowed_tokens_fn  (row, ids) to the tokens that may follow
        streamer                  gets tokens as they are chosen, of any number of rows
        tokenizer                 not needed: the model has its own
        assistant_model           a smaller model of the same vocabulary, whose guesses this one checks: the same text
        seed                      one for the call, or one a prompt; else `set_seed` decides
        kwargs                    every field of `GenerationConfig`

        Gives the rows as given, each followed by its new tokens and then pads: out[:, n:] is what is new. With
        num_return_sequences=k there are k rows for each of the B. A stop string is cut off. With
        return_dict_in_generate=True a `GenerateDecoderOnlyOutput`, which says why each row ended.

        Raises ValueError for arguments out of range, UnknownOption for one that nothing honours, TooLong for a text
        beyond the context, GenerationError if the model fails, and what the caller's own code raises.
        """
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise TypeError(f"a streamer must have put() and end(), as TextStreamer(tokenizer) has, not {streamer!r}")
        if generation_config is not None and not isinstance(generation_config, GenerationConfig):
            kind = type(generation_config).__name__
            raise TypeError(f"generation_config must be a GenerationConfig, not {kind}; keywords are given as they are")
        try:
            mask, input_ids = kwargs.pop("attention_mask", None), kwargs.pop("input_ids", None)
            refuse_absent(kwargs)
            if assistant_model is not None and not isinstance(assistant_model, PreTrainedModel):
                raise TypeError(
                    "assistant_model must be a model of quickbrown, as AutoModelForCausalLM.from_pretrained gives it, "
                    f"not {assistant_model!r}"
                )
            config, unknown = merge(
                kwargs, generation_config, self.generation_config, assisted=assistant_model is not None
            )
            for name in unknown:
                known = [*arguments(PreTrainedModel.generate), "input_ids", "attention_mask"]
                raise UnknownOption(name, [*known, *GenerationConfig.fields()])
            eos = tuple_of(config.eos_token_id)
            pad = config.pad_token_id
            if pad is None:
                pad = next((token for token in eos if token >= 0), None)
            ids, mask = prompts.split(inputs, input_ids, mask)
            if ids is None:
                if config.bos_token_id is None:
                    raise ValueError(
                        "there is nothing to continue: give input_ids; the model has no token to begin with"
                    )
                ids = np.array([[config.bos_token_id]])
            given = prompts.read(ids, mask, pad=pad, eos=eos)
            chosen = any(
                value is not None
                for name in ("max_new_tokens", "max_length")
                for value in (kwargs.get(name), getattr(generation_config, name, None))
            )
            assistant = None if assistant_model is None else assistant_model.llm
            call = Call(self.llm, config, given, eos, pad, streamer is not None, assistant)
            call.prepare(logits_processor or (), stopping_criteria or (), prefix_allowed_tokens_fn, chosen, seed)
            self._hint(given)
            texts = call.write(streamer)
            return call.result(texts)
        finally:
            if streamer is not None:  # who reads it in another thread must not wait for ever, whatever happened here
                streamer.end()

    def compute_transition_scores(
        self, sequences: Any, scores: Sequence[Any], beam_indices: Any = None, normalize_logits: bool = False
    ) -> Any:
        """The score of each chosen token: (N, T) of sequences (N, n + T) and T arrays of scores (N, vocabulary).

        normalize_logits  take them as log-probabilities, log_softmax(scores)
        """
        if beam_indices is not None:
            raise ValueError("beam_indices belong to beam search, which is not supported yet")
        kind = kind_of(sequences)
        stacked = np.stack([to_numpy(step) for step in scores], 1).astype(np.float64)  # (N, T, V)
        if normalize_logits:
            stacked = log_softmax(stacked)
        new = to_numpy(sequences)[:, -stacked.shape[1] :, None]
        return as_kind(np.take_along_axis(stacked, new, 2)[..., 0].astype(np.float32), kind)

    def _hint(self, given: prompts.Prompts) -> None:
        """Say once that a chat model is given a text that is no chat."""
        if self._hinted or self.llm.vocabulary is None:
            return
        self._hinted = True
        if not all(follows_template(self.llm, tokens) for tokens in given.tokens):
            warnings.warn(HINT.format(name=self.name_or_path), PromptHint, stacklevel=3)


def check_device(device: Any) -> None:
    """Raise ValueError for anywhere but the CPU."""
    places = list(device.values()) if isinstance(device, Mapping) else [device]
    for place in places:
        if place is not None and str(place) not in ("auto", "cpu", "cpu:0"):
            raise ValueError(f'quickbrown computes on the CPU, and not on {str(place)!r}; use device_map="cpu"')


def positions(wanted: Any, length: int) -> npt.NDArray[np.intp]:
    """The positions of 0 to length - 1 that `logits_to_keep` names."""
    if isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool):
        if wanted < 0:
            raise ValueError(f"logits_to_keep must be at least 0 (which is all), not {wanted}")
        return np.arange(length)[-int(wanted) :]
    chosen = to_numpy(wanted)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not chosen.size:
        raise ValueError("logits_to_keep must be a whole number, or a list of positions")
    if chosen.min() < -length or chosen.max() >= length:
        raise ValueError(f"logits_to_keep names positions outside of the {length} that there are")
    return np.asarray(chosen % length, np.intp)


def log_softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Over the last axis."""
    x = x - x.max(-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def cross_entropy(logits: npt.NDArray[np.float32], labels: npt.NDArray[Any], shown: npt.NDArray[np.bool_]) -> float:
    """Mean of -log p of labels[:, 1:] in logits[:, :-1], of those that are not -100 and follow a token of the text.

    nan if there are none.
    """
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels must have the shape of input_ids, {logits.shape[:2]}, not {labels.shape}")
    total, count = 0.0, 0
    for row, target, text in zip(logits[:, :-1], labels[:, 1:], shown[:, :-1], strict=True):
        asked = text & (target != -100)
        if asked.any():
            logprobs = log_softmax(row[asked].astype(np.float64))
            if target[asked].min() < 0 or target[asked].max() >= logits.shape[2]:
                raise ValueError("labels must be token ids of the vocabulary, or -100 where none is asked")
            total -= float(np.take_along_axis(logprobs, target[asked][:, None].astype(np.intp), 1).sum())
            count += int(asked.sum())
    return total / count if count else float("nan")


def as_scalar(value: float, kind: str) -> Any:
    """A number as a 0-d tensor or numpy float32."""
    return as_kind(np.array(value, np.float32), "pt") if kind == "pt" else np.float32(value)
