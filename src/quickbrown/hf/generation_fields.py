"""The fields of a generation config: what each may be, what it is when nobody says, and what it needs to matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from quickbrown.options import FLAG, ID, ID_OR_IDS, SHARE, SIZE, Check, are_strings, number, options
from quickbrown.types import SamplingParams


class Field(NamedTuple):
    """A row of the table.

    check    of a value that is not None; None for a field that is only ever refused
    default  what generate() takes for None
    needs    a row of `NEEDS`: without it, the field has no effect
    idle     values that ask for what happens anyway where the need is not met, or the field is not supported
    instead  what to do in the place of certain values of a field that is not supported
    """

    check: Check | None
    default: Any = None
    needs: str = ""
    idle: tuple[Any, ...] = ()
    instead: Mapping[str, str] = {}


CACHES = (
    "static", "offloaded_static", "dynamic", "offloaded", "quantized", "paged", "sliding_window", "hybrid",
    "hybrid_chunked", "offloaded_hybrid", "offloaded_hybrid_chunked",
)  # fmt: skip

SAMPLING, BEAMS, DICT = "do_sample=True", "num_beams above 1", "return_dict_in_generate=True"
ASSISTANT, LOOKUP, ENCODER = "an assistant_model", "prompt_lookup_num_tokens", "an encoder-decoder model"
FOREIGN, UNMEASURED = "an assistant of another vocabulary", "an assistant whose guesses are not measured"
QUANTIZED, STATIC = 'cache_implementation="quantized"', 'cache_implementation="static"'

NEEDS: dict[str, Callable[[Any], bool]] = {
    SAMPLING: lambda config: config.do_sample is True,
    BEAMS: lambda config: config.num_beams not in (None, 1),
    DICT: lambda config: config.return_dict_in_generate is True,
    ASSISTANT: lambda config: config.__dict__.get("_assisted", False),
    LOOKUP: lambda config: config.prompt_lookup_num_tokens is not None,
    QUANTIZED: lambda config: config.cache_implementation == "quantized",
    STATIC: lambda config: config.cache_implementation == "static",
    ENCODER: lambda config: False,
    FOREIGN: lambda config: False,
    UNMEASURED: lambda config: False,
}
_AT_HAND = (SAMPLING, DICT, LOOKUP, ASSISTANT)  # the needs that can be met; the others are not supported yet

_OURS = options(SamplingParams)


def _same(name: str, default: Any = None, needs: str = "", idle: tuple[Any, ...] = ()) -> Field:
    """A field that may be what the option of that name may be."""
    return Field(_OURS[name].check, default, needs, idle)


SUPPORTED: dict[str, Field] = {
    # How long
    "max_length": _same("max_length"),  # None is 20 new tokens, unless max_new_tokens says otherwise
    "max_new_tokens": _same("max_new_tokens"),
    "min_length": _same("min_length", 0),
    "min_new_tokens": _same("min_new_tokens"),
    "max_time": _same("max_time"),
    "stop_strings": Field(Check(are_strings, "a string or a list of strings, none of them empty")),
    # Drawing
    "do_sample": _same("do_sample", False),
    "temperature": Field(
        number(lambda x: x > 0, "above 0; for the likeliest token at every step pass do_sample=False"),
        1.0, SAMPLING, idle=(0,),
    ),
    "top_k": _same("top_k", 50, SAMPLING, idle=(0, 1)),
    "top_p": Field(SHARE, 1.0, SAMPLING),
    "min_p": Field(SHARE, None, SAMPLING, idle=(0,)),
    "top_h": _same("top_h", None, SAMPLING),
    "typical_p": _same("typical_p", 1.0, SAMPLING),
    "epsilon_cutoff": _same("epsilon_cutoff", 0.0, SAMPLING),
    "eta_cutoff": _same("eta_cutoff", 0.0, SAMPLING),
    "num_return_sequences": Field(SIZE, 1),
    # Changing logits
    "repetition_penalty": _same("repetition_penalty", 1.0),
    "encoder_repetition_penalty": _same("encoder_repetition_penalty", 1.0),
    "no_repeat_ngram_size": _same("no_repeat_ngram_size", 0),
    "encoder_no_repeat_ngram_size": _same("encoder_no_repeat_ngram_size", 0),
    "bad_words_ids": _same("bad_words_ids"),
    "sequence_bias": _same("sequence_bias"),
    "forced_bos_token_id": _same("forced_bos_token_id"),
    "forced_eos_token_id": _same("forced_eos_token_id"),
    "suppress_tokens": _same("suppress_tokens"),
    "begin_suppress_tokens": _same("begin_suppress_tokens"),
    "exponential_decay_length_penalty": _same("exponential_decay_length_penalty"),
    "remove_invalid_values": _same("remove_invalid_values", False),
    "renormalize_logits": _same("renormalize_logits"),
    # Tokens
    "pad_token_id": Field(ID),
    "bos_token_id": Field(ID),
    "eos_token_id": _same("eos_token_id"),  # -1 is one that never comes
    "decoder_start_token_id": Field(ID_OR_IDS, None, ENCODER),
    # What comes back
    "return_dict_in_generate": Field(FLAG, False),
    "output_scores": Field(FLAG, False, DICT),
    "output_logits": Field(FLAG, None, DICT, idle=(False,)),
    # Memory: with any value of these the same is computed, in the same way
    "use_cache": Field(FLAG, True),
    "prefill_chunk_size": Field(SIZE),
    "disable_compile": Field(FLAG),
    "max_cache_len": Field(SIZE, None, STATIC),
    "cache_config": Field(None, None, QUANTIZED),
    # Speed: with any value of these the same is written
    "prompt_lookup_num_tokens": Field(SIZE),
    "max_matching_ngram_size": _same("max_matching_ngram_size", None, LOOKUP, idle=(2,)),
    "num_assistant_tokens": Field(SIZE, 20, ASSISTANT),
    # Ways of decoding that belong to something below
    "early_stopping": Field(Check(lambda v: v in (True, False, "never"), 'True, False or "never"'), False, BEAMS),
    "length_penalty": Field(number(lambda x: True, "a number"), 1.0, BEAMS),
    "num_assistant_tokens_schedule": Field(None, "constant", UNMEASURED),
    "assistant_confidence_threshold": Field(SHARE, 0.4, UNMEASURED),
    "is_assistant": Field(FLAG, None, UNMEASURED, idle=(False,)),
    "assistant_lookbehind": Field(SIZE, 10, FOREIGN),
    "target_lookbehind": Field(SIZE, 10, FOREIGN),
}  # fmt: skip

# Not there yet: refused unless they say what happens anyway.
UNSUPPORTED: dict[str, Field] = {
    "num_beams": Field(SIZE, 1),
    "num_beam_groups": Field(None, 1),
    "diversity_penalty": Field(None, 0.0),
    "constraints": Field(None),
    "force_words_ids": Field(None),
    "penalty_alpha": Field(None, idle=(0,)),
    "dola_layers": Field(None),
    "low_memory": Field(None, idle=(False,)),
    "assistant_early_exit": Field(None),
    "assistant_ensemble_weight": Field(None),
    "speculation_type": Field(None),
    "use_mtp": Field(None, idle=(False,)),
    "guidance_scale": Field(None, idle=(1,)),
    "watermarking_config": Field(None),
    "token_healing": Field(None, idle=(False,)),
    "output_attentions": Field(FLAG, idle=(False,)),
    "output_hidden_states": Field(FLAG, idle=(False,)),
    "cache_implementation": Field(
        None,
        idle=("dynamic", "hybrid"),  # "hybrid" is how older files say dynamic
        instead={"quantized": 'leave it out, and load the model with kv_cache_dtype="int8"'},
    ),
    "compile_config": Field(None),
    "continuous_batching_config": Field(None),
}

FIELDS = {**SUPPORTED, **UNSUPPORTED}


def is_idle(name: str, value: Any) -> bool:
    """Whether a field with this value asks for nothing but what happens anyway, its need not being met."""
    field = FIELDS[name]
    return any(value is known or (type(value) in (bool, int, float, str) and value == known)
               for known in (None, field.default, *field.idle))  # fmt: skip


def idle_knobs(config: Any, names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that ask for something and have no effect in this config -> the sentence that says so."""
    found = {}
    for name in names:
        needs = FIELDS[name].needs
        value = getattr(config, name)
        if needs and not NEEDS[needs](config) and not is_idle(name, value):
            advice = f"; pass {needs}, or leave" if needs in _AT_HAND else ", which is not supported yet; leave"
            found[name] = f"{name}={_short(value)} has no effect without {needs}{advice} {name} out"
    return found


def check(config: Any, said: Iterable[str]) -> None:
    """Raise ValueError, in one sentence, for what generate() would not honour in a config.

    said  the fields that the caller set: of those, none may be without effect
    """
    for name, field in UNSUPPORTED.items():
        if not is_idle(name, value := getattr(config, name)):
            otherwise = "leave it out" if field.default is None else f"pass {field.default!r} or leave it out"
            advice = field.instead.get(value, otherwise) if isinstance(value, str) else otherwise
            raise ValueError(f"{name}={_short(value)} is not supported yet; {advice}")
    for sentence in idle_knobs(config, said).values():
        raise ValueError(sentence)
    for name, field in SUPPORTED.items():
        if not field.needs or NEEDS[field.needs](config):
            check_value(name, getattr(config, name))


def check_value(name: str, value: Any) -> None:
    """Raise ValueError for a value that a field may not have."""
    rule = FIELDS[name].check
    if value is not None and rule is not None and not rule.good(value):
        raise ValueError(f"{name}={_short(value)} must be {rule.meaning}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
