"""Arrays of the caller's kind: numpy, torch or lists in, the same kind out. Inside there is numpy only."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = ("np", "pt", "list")
NO_TORCH = 'return_tensors="pt" needs torch, which is not installed: pip install torch; return_tensors="np" works too'


def kind_of(value: Any) -> str:
    """ "pt" for a torch tensor, "np" for a numpy array, "list" for anything else."""
    torch = sys.modules.get("torch")  # who has a tensor has loaded it
    if torch is not None and isinstance(value, torch.Tensor):
        return "pt"
    return "np" if isinstance(value, (np.ndarray, np.generic)) else "list"


def to_numpy(value: Any) -> npt.NDArray[Any]:
    """A numpy array of a tensor, an array or nested lists. Raises ValueError for rows of different lengths."""
    if kind_of(value) == "pt":
        tensor = value.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # which numpy does not have
            tensor = tensor.float()
        array: npt.NDArray[Any] = tensor.numpy()
        return array
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError("the rows differ in length; pad them, as tokenizer(..., padding=True) does") from None


def as_kind(array: npt.NDArray[Any], kind: str) -> Any:
    """A numpy array as "np", "pt" (which shares its memory where it can) or "list".

    Raises ValueError for an unknown kind, ImportError where torch is wanted and missing.
    """
    if kind == "np":
        return array
    if kind == "list":
        return array.tolist()
    if kind != "pt":
        raise ValueError(f'return_tensors must be "np", "pt" or None, not {kind!r}')
    try:
        import torch
    except ImportError:
        raise ImportError(NO_TORCH) from None
    shared = array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if shared else array.copy())
