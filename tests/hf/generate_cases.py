"""Calls of `generate` that transformers and quickbrown must answer alike: prompts, and keywords that JSON can hold."""

from __future__ import annotations

from typing import Any

ONE = ["A list of colors: red, blue"]
THREE = ["A list of colors: red, blue", "Portugal is", "1, 2, 3"]
CHECKPOINT = {"model_type": "mistral", "seed": 3, "sliding_window": 12}

# name: prompts, side of the padding, keywords
CASES: dict[str, tuple[list[str], str, dict[str, Any]]] = {
    "default": (ONE, "left", {}),
    "max_new_tokens": (ONE, "left", {"max_new_tokens": 30}),
    "max_length": (ONE, "left", {"max_length": 24}),
    "max_new_tokens before max_length": (ONE, "left", {"max_length": 15, "max_new_tokens": 9}),
    "batch": (THREE, "left", {"max_new_tokens": 12}),
    "batch, max_length counts padding": (THREE, "left", {"max_length": 25}),
    "repetition_penalty": (THREE, "left", {"max_new_tokens": 24, "repetition_penalty": 1.7}),
    "repetition_penalty below 1": (ONE, "left", {"max_new_tokens": 24, "repetition_penalty": 0.6}),
    "no_repeat_ngram_size": (ONE, "left", {"max_new_tokens": 40, "no_repeat_ngram_size": 2}),
    "several ends": (THREE, "left", {"max_new_tokens": 24, "eos_token_id": list(range(260, 330))}),
    "ends kept away": (
        THREE, "left", {"max_new_tokens": 24, "eos_token_id": list(range(260, 330)), "min_new_tokens": 7},
    ),
    "min_length counts the prompt": (
        ONE, "left", {"max_new_tokens": 24, "eos_token_id": list(range(260, 330)), "min_length": 18},
    ),
    "another pad": (THREE, "left", {"max_new_tokens": 16, "eos_token_id": list(range(260, 330)), "pad_token_id": 0}),
    "bad_words_ids": (ONE, "left", {"max_new_tokens": 16, "bad_words_ids": [[i] for i in range(300, 400)]}),
    "suppress_tokens": (ONE, "left", {"max_new_tokens": 12, "suppress_tokens": list(range(3, 300))}),
    "begin_suppress_tokens": (ONE, "left", {"max_new_tokens": 12, "begin_suppress_tokens": list(range(3, 480))}),
    "forced_eos_token_id": (ONE, "left", {"max_new_tokens": 8, "forced_eos_token_id": 77}),
    "sequence_bias": (ONE, "left", {"max_new_tokens": 12, "sequence_bias": [[[301], 9.0], [[301, 302], 20.0]]}),
}  # fmt: skip
