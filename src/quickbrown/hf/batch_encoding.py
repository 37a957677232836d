"""What a tokenizer returns: ids and masks by name, and where each token came from."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from quickbrown.hf.arrays import as_kind, kind_of, to_numpy

if TYPE_CHECKING:
    from tokenizers import Encoding


class CharSpan(NamedTuple):
    """Characters from `start` up to, not including, `end`."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens from `start` up to, not including, `end`."""

    start: int
    end: int


class BatchEncoding(UserDict[str, Any]):
    """A dict of `input_ids`, `attention_mask` and what else was asked for, which are attributes too.

    With a number, `batch[i]` is the `tokenizers.Encoding` of row i, if the rows came from a tokenizer.

    data         lists, arrays or tensors by name
    encodings    the `Encoding` of each row, or None
    tensor_type  "np", "pt" or None: what the lists become
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encodings: Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
    ) -> None:
        super().__init__(data)
        self._encodings = None if encodings is None else list(encodings)
        self.convert_to_tensors(tensor_type)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.data[key]
        if self._encodings is not None:
            return self._encodings[key]
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.data.items()}
        raise KeyError(f"there is no row {key!r}: these are not the encodings of a tokenizer; {sorted(self)} are here")

    def __getattr__(self, name: str) -> Any:
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"there is no {name!r}; there are {', '.join(data) or 'no entries'}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `input_ids`. Raises ValueError for rows of different lengths."""
        return tuple(to_numpy(self.input_ids).shape)

    @property
    def encodings(self) -> list[Encoding] | None:
        return self._encodings

    @property
    def is_fast(self) -> bool:
        """Whether there are encodings, and so the methods below work."""
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for texts, 2 for pairs of texts, None where it is not known."""
        return self._encodings[0].n_sequences if self._encodings else None

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Itself, for all of it is in main memory. Raises ValueError for any device but the CPU, and for a dtype."""
        kind, _, number = str(device).partition(":")
        if isinstance(device, bool) or kind != "cpu" or (number and not number.isdecimal()):
            raise ValueError(f"quickbrown computes on the CPU; .to() takes 'cpu', not {device!r}")
        return self

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Make every list an array ("np") or a tensor ("pt") of int64, in place; None leaves all as it is.

        prepend_batch_axis  the lists are those of one row

        Raises ValueError for rows of different lengths and for another kind, ImportError where torch is missing.
        """
        if tensor_type is None:
            return self
        if tensor_type not in ("np", "pt"):
            raise ValueError(f'return_tensors must be "np", "pt" or None, not {tensor_type!r}')
        for name, value in self.data.items():
            rows = [value] if prepend_batch_axis else value
            if kind_of(rows) == tensor_type:
                continue
            try:
                array = to_numpy(rows)
            except ValueError:
                raise ValueError(
                    f"the rows of {name} differ in length, so they make no array: pad them with padding=True, "
                    "or cut them with truncation=True"
                ) from None
            self.data[name] = as_kind(array.astype(np.int64) if array.size == 0 else array, tensor_type)
        return self

    # -- where tokens came from -----------------------------------------------------------------------------------

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row, as the vocabulary writes them."""
        return list(self._row(batch_index).tokens)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The number of the word that each token of a row belongs to, None for special tokens."""
        return list(self._row(batch_index).word_ids)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """0 or 1 for each token of a row: which text of a pair it belongs to; None for special tokens."""
        return list(self._row(batch_index).sequence_ids)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Which text of a pair a token belongs to. One index is a token of the only row."""
        row, at = self._place(batch_or_token_index, token_index)
        return row.token_to_sequence(at)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The number of the word that a token belongs to."""
        row, at = self._place(batch_or_token_index, token_index)
        return row.token_to_word(at)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of the text that a token stands for."""
        row, at = self._place(batch_or_token_index, token_index)
        return None if (span := row.token_to_chars(at)) is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word."""
        row, at = self._place(batch_or_word_index, word_index)
        return None if (span := row.word_to_tokens(at, sequence_index)) is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word."""
        row, at = self._place(batch_or_word_index, word_index)
        return None if (span := row.word_to_chars(at, sequence_index)) is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that a character became a part of; None for one that became none, as a blank may."""
        row, at = self._place(batch_or_char_index, char_index)
        return row.char_to_token(at, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The number of the word that a character belongs to."""
        row, at = self._place(batch_or_char_index, char_index)
        return row.char_to_word(at, sequence_index)

    def _row(self, index: int) -> Encoding:
        if self._encodings is None:
            raise ValueError("these are not the encodings of a tokenizer, so where tokens came from is not known")
        return self._encodings[index]

    def _place(self, first: int, second: int | None) -> tuple[Encoding, int]:
        """A row, and a place in it; of one index, a place in the first row. A place below 0 counts from the end."""
        row, at = (0, first) if second is None else (first, second)
        encoding = self._row(row)
        return encoding, at + len(encoding.ids) if at < 0 else at
