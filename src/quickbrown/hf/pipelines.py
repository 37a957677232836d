"""pipeline("text-generation"): a model and its tokenizer, loaded and put together."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

from quickbrown.hf.auto_model import AutoModelForCausalLM
from quickbrown.hf.model import PreTrainedModel
from quickbrown.hf.pipeline_options import split_options
from quickbrown.hf.text_generation import TextGenerationPipeline, given_only
from quickbrown.hf.tokenizer import AutoTokenizer, PreTrainedTokenizer

TASK = "text-generation"
MODEL = "smollm2-135m"

# Tasks of models that read with one half and write with the other, and what to ask a chat model for.
ASK = {
    "text2text-generation": "Rewrite this politely: ...",
    "summarization": "Summarize this: ...",
    "translation": "Translate this to French: ...",
    "question-answering": "Answer from this text: ...",
}


def pipeline(
    task: str | None = None,
    model: str | os.PathLike[str] | PreTrainedModel | None = None,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizer | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    device: object = None,
    device_map: object = None,
    dtype: object = None,
    torch_dtype: object = None,
    use_fast: bool = True,
    trust_remote_code: bool = False,
    model_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> TextGenerationPipeline:
    """A callable that continues texts and answers conversations.

    task          "text-generation", which is also what is taken if none is named
    model         a name or path as `AutoModelForCausalLM.from_pretrained` takes it, or a model; smollm2-135m if none
    tokenizer     a name or path, or a tokenizer; the model's own if none
    device        "cpu", -1 or nothing
    model_kwargs  further arguments of `AutoModelForCausalLM.from_pretrained`
    options       defaults for the calls: see `TextGenerationPipeline`

    `revision`, `token`, `device_map`, `dtype` (or `torch_dtype`) and `trust_remote_code` go to `from_pretrained`.
    Raises ValueError for a task or an argument that cannot be had, UnknownOption for one that nothing honours, and what
    loading raises.
    """
    check_task(task, model)
    if device is not None and str(device) not in ("cpu", "-1"):
        raise ValueError(f"quickbrown computes on the CPU; device must be 'cpu', not {str(device)!r}")
    if not use_fast:
        raise ValueError("use_fast=False asks for a tokenizer written in Python; there is only the fast one")
    if dtype is not None and torch_dtype is not None:
        raise ValueError("dtype and torch_dtype are one argument under two names; give dtype")
    split_options(options)  # before anything is loaded
    where = given_only({"revision": revision, "token": token})
    how = given_only({"device_map": device_map, "dtype": torch_dtype if dtype is None else dtype})
    how |= {**({"trust_remote_code": True} if trust_remote_code else {}), **(model_kwargs or {})}
    if isinstance(model, (str, os.PathLike)) or model is None:
        model = AutoModelForCausalLM.from_pretrained(MODEL if model is None else model, **where, **how)
    elif how or where:
        unused = ", ".join([*how, *where])
        raise ValueError(f"the model is loaded already, so {unused} cannot be honoured; give it to from_pretrained()")
    if tokenizer is None:
        tokenizer = AutoTokenizer.from_pretrained(model.llm.path)
    elif isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, **where)
    return TextGenerationPipeline(model, tokenizer, **options)


def check_task(task: str | None, model: object) -> None:
    """Raises ValueError, which says what to do instead, for any task but "text-generation"."""
    if task is None or task == TASK:
        return
    if not isinstance(task, str):
        raise ValueError(f"the task must be {TASK!r}, not {task!r}; a model is given as model=")
    kind = "translation" if task.startswith("translation") else task
    if kind in ASK:
        raise ValueError(
            f"the task {task!r} needs an encoder-decoder model, which quickbrown does not run; ask a chat model: "
            f"pipeline({TASK!r}, model=...)([{{'role': 'user', 'content': '{ASK[kind]}'}}])"
        )
    if task == "conversational":
        raise ValueError(f"the task 'conversational' is part of {TASK!r}, which takes conversations too")
    if difflib.get_close_matches(task, [TASK], n=1):
        raise ValueError(f"unknown task {task!r}; did you mean {TASK!r}?")
    hint = f"; a model is named by model={task!r}" if model is None else ""
    raise ValueError(f"unknown task {task!r}: quickbrown writes text, and its one task is {TASK!r}{hint}")
