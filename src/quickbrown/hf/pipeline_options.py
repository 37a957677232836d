"""What a pipeline takes besides the arguments of `generate`."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quickbrown.hf.generate import arguments, refuse_absent
from quickbrown.hf.generation_fields import FIELDS
from quickbrown.hf.model import PreTrainedModel
from quickbrown.types import UnknownOption


class ReturnType(enum.Enum):
    """What a record holds: all token ids, the new text, or the prompt and the new text."""

    TENSORS = 0
    NEW_TEXT = 1
    FULL_TEXT = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a pipeline takes besides the arguments of `generate`. Raises ValueError for what cannot be honoured.

    return_full_text        True (what is done if nothing is said): the prompt and the new text; False: the new text
    return_text             True: texts, whole; False: token ids
    return_tensors          True: token ids, as `generated_token_ids`, in the place of texts
    return_type             a `ReturnType`; wins over the three above
    clean_up_tokenization_spaces, skip_special_tokens  as `tokenizer.decode` takes them; special tokens are left out
                            unless asked for
    prefix                  text before each prompt, which the full text leaves out
    add_special_tokens, truncation  as the tokenizer takes them; conversations carry their own special tokens
    max_length              tokens of prompt and answer together, at most; with `truncation`, of the prompt as well
    padding                 nothing depends on it: texts of different lengths are written together as they are
    tokenizer_encode_kwargs further arguments of `tokenizer(...)`, or of `apply_chat_template` for conversations
    tools, documents        for the chat template
    continue_final_message  go on with the last message, not with a new one; what is done if it is the assistant's
    handle_long_generation  "hole": cut the beginning of a prompt that leaves no room for what is to be written
    stop_sequence           string or strings that end a text; `generate` calls them stop_strings
    batch_size              the most texts to write together; of a list all, of an iterator one at a time, unless given
    num_workers             0; there are no workers to wait for
    """

    return_full_text: bool | None = None
    return_text: bool | None = None
    return_tensors: bool | None = None
    return_type: ReturnType | int | None = None
    clean_up_tokenization_spaces: bool | None = None
    skip_special_tokens: bool | None = None
    prefix: str | None = None
    add_special_tokens: bool | None = None
    truncation: bool | str | None = None
    max_length: int | None = None
    padding: bool | str | None = None
    tokenizer_encode_kwargs: Mapping[str, Any] | None = None
    tools: Sequence[Any] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    continue_final_message: bool | str | None = None
    handle_long_generation: str | None = None
    stop_sequence: str | Sequence[str] | None = None
    batch_size: int | None = None
    num_workers: int | None = None

    def __post_init__(self) -> None:
        for other in ("return_text", "return_tensors"):
            if self.return_full_text is not None and getattr(self, other):
                raise ValueError(f"return_full_text and {other} exclude each other; give one of them")
        if self.return_text and self.return_tensors:
            raise ValueError("return_text and return_tensors exclude each other; give one of them")
        if self.handle_long_generation not in (None, "hole"):
            raise ValueError(f"handle_long_generation must be None or 'hole', not {self.handle_long_generation!r}")
        if self.padding == "max_length":
            raise ValueError("padding='max_length' is of no use: texts of different lengths are written as they are")
        if self.num_workers:
            raise ValueError(f"num_workers must be 0, not {self.num_workers!r}: texts are computed together")
        size = self.batch_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, not {size!r}")

    @property
    def wanted(self) -> ReturnType:
        if self.return_type is not None:
            return ReturnType(self.return_type)
        if self.return_tensors or self.return_text is False:
            return ReturnType.TENSORS
        return ReturnType.NEW_TEXT if self.return_full_text is False else ReturnType.FULL_TEXT


def split_options(options: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """What is the pipeline's, and what is for generate(). Raises UnknownOption for what is neither's."""
    own = [field.name for field in dataclasses.fields(Options)]
    rest = {name: value for name, value in options.items() if name not in own}
    refuse_absent(rest)
    known = [*own, *FIELDS, *arguments(PreTrainedModel.generate)]
    known.remove("inputs")  # which a pipeline makes itself
    for name in rest:
        if name not in known:
            raise UnknownOption(name, known)
    return Options(**{name: value for name, value in options.items() if name in own}), rest
