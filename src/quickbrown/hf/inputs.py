"""What to continue: rows of token ids, and the mask that says which of them are text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.hf.arrays import kind_of, to_numpy

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prompts:
    """B rows of n token ids.

    ids    (B, n) int64, as given
    shown  (B, n) bool: which of them are text; the others might as well not be there
    kind   "np", "pt" or "list": the caller's kind of array
    """

    ids: Ids
    shown: npt.NDArray[np.bool_]
    kind: str

    @property
    def tokens(self) -> list[list[int]]:
        """The text of each row."""
        return [row[shown].tolist() for row, shown in zip(self.ids, self.shown, strict=True)]


def split(inputs: Any, input_ids: Any, attention_mask: Any) -> tuple[Any, Any]:
    """Ids and mask, however a caller hands them over: one by one, or together as a tokenizer gives them."""
    if inputs is not None and input_ids is not None:
        raise ValueError("inputs and input_ids are the same thing; give one of them")
    ids = input_ids if inputs is None else inputs
    if not isinstance(ids, Mapping):
        return ids, attention_mask
    if "input_ids" not in ids:
        raise ValueError(f"the inputs hold {', '.join(map(repr, ids))}, but no 'input_ids'")
    return ids["input_ids"], ids.get("attention_mask") if attention_mask is None else attention_mask


def read(ids: Any, mask: Any, *, pad: int | None = None, eos: Collection[int] = ()) -> Prompts:
    """Check ids (B, n) and mask (B, n) of 0 and 1. Without a mask, tokens equal to `pad` are none of the text.

    Raises ValueError for anything else, and where pads cannot be told from ends of text.
    """
    kind = kind_of(ids)
    rows = to_numpy(ids)
    if rows.dtype.kind in "US":
        raise ValueError("input_ids must be token ids; a tokenizer makes them of a text: generate(**tokenizer([text]))")
    if rows.ndim == 1 and rows.size:
        raise ValueError("input_ids must be rows of token ids, (batch, length); a single row is [ids]")
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"input_ids must have the shape (batch, length), with at least one token, not {rows.shape}")
    if rows.dtype.kind not in "iu":
        raise ValueError(f"input_ids must be whole numbers, not {rows.dtype}; a text is made into ids by a tokenizer")
    rows = rows.astype(np.int64)
    shown = without_mask(rows, pad, eos) if mask is None else read_mask(mask, rows.shape)
    if not shown.any(1).all():
        empty = int(np.flatnonzero(~shown.any(1))[0])
        raise ValueError(f"row {empty} has nothing but padding; give it at least one token")
    return Prompts(rows, shown, kind)


def read_mask(mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    values = to_numpy(mask)
    if values.ndim != 2 or values.shape != shape:
        raise ValueError(
            f"attention_mask must have the shape of input_ids, {shape}, with 1 for text and 0 for padding, "
            f"not {values.shape}"
        )
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise ValueError("attention_mask must hold 0 and 1 only: 1 for text, 0 for padding")
    return values.astype(np.bool_)


def without_mask(rows: Ids, pad: int | None, eos: Collection[int]) -> npt.NDArray[np.bool_]:
    """What a mask would most likely say."""
    pads = np.zeros(rows.shape, np.bool_) if pad is None else rows == pad
    if pad not in eos:
        return ~pads
    if len(rows) > 1 and (pads[:, 0] | pads[:, -1]).any():
        raise ValueError(
            f"token {pad} stands at the edge of a row, and is both padding and the end of a text, so it cannot be told "
            f"which it is here; pass attention_mask, as in generate(**tokenizer(..., padding=True))"
        )
    return np.ones(rows.shape, np.bool_)
