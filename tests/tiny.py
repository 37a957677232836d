"""Tiny random models for tests, the batches they run, and the logits they give."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.backends.native.runner import NativeRunner
from quickbrown.engine.batch import Batch, Ints
from quickbrown.models import families
from quickbrown.quant.weight import Weight
from quickbrown.weights.source import Source
from quickbrown.weights.tiny import TinySource

BLOCK = NativeRunner.block_size
NONE = np.zeros(0, np.int32)


def model(source: Source) -> Any:
    """The family object of a source."""
    return model_of(source.config, {name: source.get(name) for name in source.names()})


def model_of(config: Mapping[str, Any], weights: Mapping[str, Weight]) -> Any:
    """The family object of fields of a config, `model_type` among them, and named weights."""
    family = families.of_model_type(config["model_type"])
    return family.Model(family.configure(config), Named(weights))


class Named:
    """Named weights as a model takes them."""

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self.weights = weights

    def take(self, name: str, *shape: int) -> Weight:
        assert self.weights[name].shape == shape, name
        return self.weights[name]


def decoded(weight: Weight) -> Weight:
    """The same values in float32."""
    values = weight.decode()
    return Weight("f32", weight.shape, values.reshape(len(weight.data), -1).view(np.uint8))


_made: dict[str, Any] = {}


def family(model_type: str, format: str = "f32", seed: int = 0, **config: Any) -> Any:
    """A model as `TinySource` takes them; the same object for the same arguments."""
    key = repr((model_type, format, seed, sorted(config.items())))
    if key not in _made:
        _made[key] = model(TinySource(model_type=model_type, format=format, seed=seed, **config))
    return _made[key]


def llama(format: str = "f32", seed: int = 0, **config: Any) -> Any:
    """The same of a Llama."""
    return family("llama", format, seed, **config)


def text(length: int, seed: int = 0, vocabulary: int = 320) -> Ints:
    """Random token ids."""
    return np.random.default_rng([7, seed]).integers(0, vocabulary, length).astype(np.int32)


def span(model: Any, length: int) -> int:
    """What a model's rotations ask of a text of this length; 0 where it has none."""
    return max((rope.span(length) for rope in model.ropes), default=0)


@dataclasses.dataclass
class Part:
    """Some tokens of one sequence in a step: tokens[past:end] of a text that has the blocks `table`."""

    tokens: Ints
    past: int
    end: int
    table: Ints
    rows: Sequence[int] | None = None  # which of the new tokens want logits; all unless given
    span: int = 0
    read: int = -1  # the place of its states, where the model has some
    write: int | None = None


def states(model: Any, step: int = 0, first: int = 0) -> dict[str, int]:
    """Fields of a `Part`, by which the steps of one sequence read and write states in two places by turns; none for
    models without."""
    if not model.config.state_sizes:
        return {}
    return {"read": first + (step - 1) % 2 if step else -1, "write": first + step % 2}


def batch(parts: Sequence[Part], fresh: Ints = NONE) -> Batch:
    """One step of several sequences."""
    counts = [p.end - p.past for p in parts]
    starts = np.cumsum([0, *counts]).astype(np.int32)
    writes = [p.write for p in parts if p.write is not None]
    rows = [starts[i] + np.arange(counts[i])[slice(None) if p.rows is None else p.rows] for i, p in enumerate(parts)]
    return Batch(
        tokens=np.concatenate([p.tokens[p.past : p.end] for p in parts]).astype(np.int32),
        positions=np.concatenate([np.arange(p.past, p.end) for p in parts]).astype(np.int32),
        starts=starts,
        blocks=np.concatenate([p.table for p in parts]).astype(np.int32),
        block_starts=np.cumsum([0, *(len(p.table) for p in parts)]).astype(np.int32),
        logit_rows=np.concatenate(rows).astype(np.int32),
        fresh=fresh.astype(np.int32),
        spans=[p.span for p in parts],
        reads=[p.read for p in parts] if writes else [],
        writes=writes,
    )


def logits(
    runner: Any, tokens: Ints, chunk: int = 1 << 30, first_block: int = 0, span: int = 0
) -> npt.NDArray[np.float32]:
    """Logits after each token of one text, read in chunks of so many tokens."""
    table = np.arange(first_block, first_block + -(-len(tokens) // BLOCK), dtype=np.int32)
    out = []
    for step, past in enumerate(range(0, len(tokens), chunk)):
        own = {"read": (step - 1) % 2 if step else -1, "write": step % 2} if runner.states() else {}
        part = Part(tokens, past, min(len(tokens), past + chunk), table, span=span, **own)
        runner.run(batch([part], table if past == 0 else NONE))
        out.append(np.array(runner.logits()))
    return np.concatenate(out)
