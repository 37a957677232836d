"""The fields of a generation config: what each may be, what it is when nobody says, and what it needs to matter."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Check(NamedTuple):
    """What a value must be: a test that never raises, and the words for it."""

    good: Callable[[Any], bool]
    meaning: str


class Field(NamedTuple):
    """A row of the table.

    check    of a value that is not None; None for a field that is only ever refused
    default  what generate() takes for None
    needs    a row of `NEEDS`: without it, the field has no effect
    idle     values that ask for what happens anyway where the need is not met, or the field is not supported
    """

    check: Check | None
    default: Any = None
    needs: str = ""
    idle: tuple[Any, ...] = ()


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def _whole(least: int, note: str = "") -> Check:
    return Check(lambda value: _is_whole(value) and value >= least, f"a whole number of at least {least}{note}")


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, str)) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _number(good: Callable[[Any], bool], meaning: str) -> Check:
    return Check(lambda value: _is_number(value) and good(value), meaning)


def _is_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(_is_whole(i) and i >= 0 for i in value)


def _is_whole_or_several(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, (list, tuple)) and len(value) > 0 and all(map(_is_whole, value)))


def _are_biases(value: Any) -> bool:
    if not isinstance(value, (Mapping, list, tuple)) or not value:
        return False
    pairs = value.items() if isinstance(value, Mapping) else value
    pairs = [p if isinstance(p, (list, tuple)) and len(p) == 2 else (None, None) for p in pairs]
    return all(_is_ids(ids) and isinstance(bias, (int, float)) and not math.isnan(bias) for ids, bias in pairs)


def _is_decay(value: Any) -> bool:
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    return pair and _is_whole(value[0]) and value[0] >= 0 and _is_number(value[1]) and value[1] > 0


def _are_strings(value: Any) -> bool:
    values = [value] if isinstance(value, str) else value
    return isinstance(values, (list, tuple)) and all(isinstance(s, str) and s for s in values)


FLAG = Check(lambda value: isinstance(value, bool), "True or False")
COUNT = _whole(0)
SIZE = _whole(1)
ABOVE_0 = _number(lambda x: x > 0, "a number above 0")
SHARE = _number(lambda x: 0 <= x <= 1, "from 0 to 1")
CUTOFF = _number(lambda x: 0 <= x < 1, "at least 0 (which is off) and below 1")
ID = Check(lambda value: _is_whole(value) and value >= 0, "a token id")
ID_OR_IDS = Check(lambda value: ID.good(value) or _is_ids(value), "a token id or a list of token ids")
IDS = Check(lambda value: value in ([], ()) or _is_ids(value), "a list of token ids")

CACHES = (
    "static", "offloaded_static", "dynamic", "offloaded", "quantized", "paged", "sliding_window", "hybrid",
    "hybrid_chunked", "offloaded_hybrid", "offloaded_hybrid_chunked",
)  # fmt: skip

SAMPLING, BEAMS, DICT = "do_sample=True", "num_beams above 1", "return_dict_in_generate=True"
ASSISTANT, LOOKUP, ENCODER = "an assistant_model", "prompt_lookup_num_tokens", "an encoder-decoder model"
QUANTIZED, STATIC = 'cache_implementation="quantized"', 'cache_implementation="static"'

NEEDS: dict[str, Callable[[Any], bool]] = {
    SAMPLING: lambda config: config.do_sample is True,
    BEAMS: lambda config: config.num_beams not in (None, 1),
    DICT: lambda config: config.return_dict_in_generate is True,
    ASSISTANT: lambda config: False,
    LOOKUP: lambda config: config.prompt_lookup_num_tokens is not None,
    QUANTIZED: lambda config: config.cache_implementation == "quantized",
    STATIC: lambda config: config.cache_implementation == "static",
    ENCODER: lambda config: False,
}
_AT_HAND = (SAMPLING, DICT)  # the needs that can be met; the others are not supported yet

SUPPORTED: dict[str, Field] = {
    # How long
    "max_length": Field(SIZE),  # None is 20 new tokens, unless max_new_tokens says otherwise
    "max_new_tokens": Field(SIZE),
    "min_length": Field(COUNT, 0),
    "min_new_tokens": Field(COUNT),
    "max_time": Field(ABOVE_0),
    "stop_strings": Field(Check(_are_strings, "a string or a list of strings, none of them empty")),
    # Drawing
    "do_sample": Field(FLAG, False),
    "temperature": Field(
        _number(lambda x: x > 0, "above 0; for the likeliest token at every step pass do_sample=False"),
        1.0, SAMPLING, idle=(0,),
    ),
    "top_k": Field(_whole(0, " (0 is off)"), 50, SAMPLING, idle=(0, 1)),
    "top_p": Field(SHARE, 1.0, SAMPLING),
    "min_p": Field(SHARE, None, SAMPLING, idle=(0,)),
    "top_h": Field(_number(lambda x: 0 < x <= 1, "above 0 and at most 1"), None, SAMPLING),
    "typical_p": Field(_number(lambda x: 0 < x <= 1, "above 0 and at most 1 (which is off)"), 1.0, SAMPLING),
    "epsilon_cutoff": Field(CUTOFF, 0.0, SAMPLING),
    "eta_cutoff": Field(CUTOFF, 0.0, SAMPLING),
    "num_return_sequences": Field(SIZE, 1),
    # Changing logits
    "repetition_penalty": Field(ABOVE_0, 1.0),
    "encoder_repetition_penalty": Field(ABOVE_0, 1.0),
    "no_repeat_ngram_size": Field(COUNT, 0),
    "encoder_no_repeat_ngram_size": Field(COUNT, 0),
    "bad_words_ids": Field(
        Check(lambda v: isinstance(v, (list, tuple)) and len(v) > 0 and all(map(_is_ids, v)), "a list of lists of ids")
    ),
    "sequence_bias": Field(Check(_are_biases, "a dict of tuples of ids to numbers, or a list of [ids, number]")),
    "forced_bos_token_id": Field(ID),
    "forced_eos_token_id": Field(ID_OR_IDS),
    "suppress_tokens": Field(IDS),
    "begin_suppress_tokens": Field(IDS),
    "exponential_decay_length_penalty": Field(Check(_is_decay, "a pair of a start and a factor above 0")),
    "remove_invalid_values": Field(FLAG, False),
    "renormalize_logits": Field(FLAG),
    # Tokens
    "pad_token_id": Field(ID),
    "bos_token_id": Field(ID),
    "eos_token_id": Field(Check(_is_whole_or_several, "a token id or a list of them")),  # -1 is one that never comes
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
    # Ways of decoding that belong to something below
    "early_stopping": Field(Check(lambda v: v in (True, False, "never"), 'True, False or "never"'), False, BEAMS),
    "length_penalty": Field(_number(lambda x: True, "a number"), 1.0, BEAMS),
    "num_assistant_tokens": Field(SIZE, 20, ASSISTANT),
    "num_assistant_tokens_schedule": Field(None, "constant", ASSISTANT),
    "assistant_confidence_threshold": Field(SHARE, 0.4, ASSISTANT),
    "assistant_lookbehind": Field(SIZE, 10, ASSISTANT),
    "target_lookbehind": Field(SIZE, 10, ASSISTANT),
    "is_assistant": Field(FLAG, None, ASSISTANT, idle=(False,)),
    "max_matching_ngram_size": Field(SIZE, None, LOOKUP),
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
    "prompt_lookup_num_tokens": Field(None),
    "assistant_early_exit": Field(None),
    "assistant_ensemble_weight": Field(None),
    "speculation_type": Field(None),
    "use_mtp": Field(None, idle=(False,)),
    "guidance_scale": Field(None, idle=(1,)),
    "watermarking_config": Field(None),
    "token_healing": Field(None, idle=(False,)),
    "output_attentions": Field(FLAG, idle=(False,)),
    "output_hidden_states": Field(FLAG, idle=(False,)),
    "cache_implementation": Field(None, idle=("dynamic", "hybrid")),  # "hybrid" is how older files say dynamic
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
            advice = "leave it out" if field.default is None else f"pass {field.default!r} or leave it out"
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
