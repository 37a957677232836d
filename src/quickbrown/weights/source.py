"""Named weights and the numbers that go with them, wherever they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from quickbrown.quant.weight import Weight

MOST_SAID = 1000  # characters of an error


class BadFile(ValueError):
    """A model file that cannot be used. The message is one sentence naming the file and what is wrong with it."""


def bad_file(path: object, what: str) -> BadFile:
    """The error for a file and what is wrong with it, on one line and not too long whatever the file quotes."""
    what = " ".join(what.split())
    return BadFile(f"{path}: {what if len(what) <= MOST_SAID else what[:MOST_SAID] + '...'}.")


def read_json(path: Path, most: int) -> dict[str, Any]:
    """The object in a JSON file of at most `most` bytes. Raises BadFile, OSError where it cannot be opened."""
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise bad_file(path, f"is larger than {most >> 20} MiB")
    return parse_json(data, path)


def parse_json(data: bytes, path: object) -> dict[str, Any]:
    """The object that JSON text means, no name in it twice. Raises BadFile; `path` is where it was read, for that."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise bad_file(path, "is not valid UTF-8") from None
    except RecursionError:
        raise bad_file(path, "is nested too deeply") from None
    except ValueError as error:
        raise bad_file(path, f"is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise bad_file(path, "must hold a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name!r} is there twice")
            seen.add(name)
    return found


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
