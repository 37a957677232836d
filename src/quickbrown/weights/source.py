"""Named weights and the numbers that go with them, wherever they come from."""

from __future__ import annotations

from typing import Any, Protocol

from quickbrown.quant.weight import Weight


class BadFile(ValueError):
    """A model file that cannot be used. The message is one sentence naming the file and what is wrong with it."""


def bad_file(path: object, what: str) -> BadFile:
    """The error for a file and what is wrong with it, on one line and not too long whatever the file quotes."""
    what = " ".join(what.split())
    return BadFile(f"{path}: {what if len(what) <= 500 else what[:500] + '...'}.")


class Source(Protocol):
    """Weights under the names that Hugging Face checkpoints publish: `model.layers.0.self_attn.q_proj.weight`, ...

    config  the fields of config.json that the family reads, and `model_type`
    """

    config: dict[str, Any]

    def names(self) -> list[str]:
        """Every weight's name."""
        ...

    def get(self, name: str) -> Weight:
        """The weight as published; linear weights are (out, in). Raises KeyError for a name not in `names()`."""
        ...

    def release(self, name: str) -> None:
        """The bytes of this weight were copied away and may leave memory; `get` still works and reads them anew."""
        ...
