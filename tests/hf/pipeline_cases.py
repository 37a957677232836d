"""Calls of a pipeline that transformers and quickbrown must answer alike: inputs and options that JSON can hold."""

from __future__ import annotations

from typing import Any

from checkpoints import CHAT

CHECKPOINT = {"model_type": "qwen3", "seed": 5, "tokenizer": "bytelevel", "chat_template": CHAT}
GREEDY = {"do_sample": False, "max_new_tokens": 8}
USER = [{"role": "user", "content": "What is the capital of France?"}]
PREFILLED = [*USER, {"role": "assistant", "content": "The capital"}]
SYSTEM = [{"role": "system", "content": "Answer in one sentence."}, *USER]
LONG = "The quick brown fox jumps over the lazy dog. " * 20

# name: inputs, options besides GREEDY
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "text": ("Portugal is", {}),
    "texts": (["Portugal is", "A list of colors:"], {}),
    "one text in a list": (["Portugal is"], {}),
    "texts in batches": (["Portugal is", "A list of colors:", "1"], {"batch_size": 2}),
    "chat": (USER, {}),
    "chats": ([USER, SYSTEM], {}),
    "chat, new text": (SYSTEM, {"return_full_text": False}),
    "prefilled": (PREFILLED, {}),
    "prefilled, new text": (PREFILLED, {"return_full_text": False}),
    "prefilled, a message anew": (PREFILLED, {"continue_final_message": False}),
    "new text": ("Portugal is", {"return_full_text": False}),
    "return_text": ("Portugal is", {"return_text": True}),
    "ids": ("Portugal is", {"return_tensors": True}),
    "ids of a chat": (USER, {"return_tensors": True}),
    "prefix": ("Portugal is", {"prefix": "Once upon a time, "}),
    "prefix, ids": ("Portugal is", {"prefix": "Once upon a time, ", "return_tensors": True}),
    "special tokens": (USER, {"skip_special_tokens": False, "return_full_text": False}),
    "max_length": ("Portugal is", {"max_length": 12, "max_new_tokens": None}),
    "hole": (LONG, {"handle_long_generation": "hole", "return_tensors": True}),
    "truncation": (LONG, {"tokenizer_encode_kwargs": {"truncation": True, "max_length": 9}, "return_tensors": True}),
    "truncation of the options": (LONG, {"truncation": True, "max_length": 9, "return_tensors": True}),
}
