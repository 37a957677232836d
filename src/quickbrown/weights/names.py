"""Names of weights: those that a model has against those that a file holds, and their names and layout in GGUF."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quickbrown.models.gguf import Gguf
from quickbrown.quant.formats import Bytes

Shape = tuple[int, ...]
MOST_LISTED = 10  # names in an error
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)", re.ASCII)
_ENDS = (".weight", ".bias")


def unfitting(needed: Mapping[str, Shape], held: Mapping[str, Shape], spelled: Callable[[str], str], owner: str) -> str:
    """What is wrong with the tensors that a file holds, all of it; "" where they are just those that are needed.

    spelled  a needed name -> the file's own
    owner    who does not have those that are too many: "this llama"
    """
    wrong = []
    if extra := [repr(name) for name in held if name not in needed]:
        wrong.append(f"holds the tensor{_s(extra)} {_some(extra)}, which {owner} does not have")
    odd = [name for name in needed if name in held and held[name] != needed[name]]
    if odd:
        shapes = [f"tensor {spelled(n)!r} has shape {held[n]}, but its config needs {needed[n]}" for n in odd]
        wrong.append(_some(shapes, "; "))
    if missing := [repr(spelled(name)) for name in needed if name not in held]:
        wrong.append(f"the tensor{_s(missing)} {_some(missing)} {'are' if missing[1:] else 'is'} missing")
    return "; ".join(wrong)


def _some(names: list[str], between: str = ", ") -> str:
    more = len(names) - MOST_LISTED
    return between.join(names[:MOST_LISTED]) + (f"{between}and {more} more" if more > 0 else "")


def _s(names: list[str]) -> str:
    return "s" if len(names) > 1 else ""


class Place(NamedTuple):
    """Where a GGUF file keeps a weight: in a tensor, or in one of the equal parts of its first axis."""

    tensor: str
    part: int | None


def places(gguf: Gguf, names: Iterable[str]) -> dict[str, Place]:
    """Published name -> where it is, of all that GGUF has a name for."""
    back = {published: tensor for tensor, published in gguf.tensors.items()} | dict(gguf.also)
    found = {}
    for name in names:
        end = next((end for end in _ENDS if name.endswith(end)), "")
        numbers = _LAYER.findall(name)
        tensor = back.get(_LAYER.sub("{}", name).removesuffix(end))
        if tensor is not None:
            count = tensor.count("{}")
            part = int(numbers[count]) if len(numbers) > count else None
            found[name] = Place(tensor.format(*numbers) + ("" if tensor.endswith(_ENDS) else end or ".weight"), part)
    return found


def halves_of(gguf: Gguf, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Published name -> the tensors that hold its halves, of all that GGUF keeps so."""
    found = {}
    for name in names:
        if pair := gguf.joined.get(_LAYER.sub("{}", name)):
            numbers = _LAYER.findall(name)
            found[name] = (pair[0].format(*numbers), pair[1].format(*numbers))
    return found


def halves(rows: Bytes, heads: int) -> Bytes:
    """Rows of attn_q or attn_k, (heads * D, bytes), from GGUF's order to Hugging Face's: a copy.

    GGUF keeps the two rows that rope rotates together side by side; Hugging Face keeps all first ones of a head, then
    all second ones. Rows move whole, so this works on encoded bytes of any format.
    """
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def pairs(rows: Bytes, heads: int) -> Bytes:
    """The inverse of `halves`: from Hugging Face's order to GGUF's."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def key_head_order(heads: int, kv_heads: int, dim: int) -> npt.NDArray[np.intp]:
    """Which rows of [all q | all k | all v] make [q of its queries | k | v] of each key head, one after the other."""
    rows = np.arange((heads + 2 * kv_heads) * dim).reshape(-1, dim)
    q = rows[:heads].reshape(kv_heads, -1, dim)
    k, v = rows[heads:].reshape(2, kv_heads, 1, dim)
    return np.concatenate([q, k, v], 1).reshape(-1)


def kind_order(heads: int, kv_heads: int, dim: int) -> npt.NDArray[np.intp]:
    """The inverse of `key_head_order`."""
    return np.argsort(key_head_order(heads, kv_heads, dim))
