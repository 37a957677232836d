"""What a GGUF file says of rotations that are stretched over longer texts, as `rope_parameters` of a config.json.

rope.scaling.type "linear", "yarn"      with rope.scaling.factor and more settings
tensor rope_freqs                       what divides the speed of each pair, in texts of any length (Llama 3.1)
tensors rope_factors_short, _long       the same for texts as long as trained, and for longer ones (LongRoPE)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from quickbrown.models.config import MOST_HEAD
from quickbrown.quant.weight import Weight
from quickbrown.weights.gguf_file import GgufFile

FREQUENCIES, SHORT, LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
_YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
_ATTENTION = ("attn_factor", "yarn_attn_factor")


class Stretched(NamedTuple):
    """Entries of rope_parameters, and the settings (without the architecture) and tensors that they were made of."""

    parameters: dict[str, Any]
    settings: frozenset[str] = frozenset()
    tensors: frozenset[str] = frozenset()


def stretched(file: GgufFile, architecture: str, scaled: bool) -> Stretched:
    """How a model's rotations are stretched; nothing where they are not, or in a way that is not known here, whose
    settings are then left to be refused. `scaled` as in models/gguf.py. Raises BadFile for values that cannot be."""
    kind = _setting(file, architecture, "type")
    if FREQUENCIES in file.tensors and kind in (None, "none"):
        divisors = _divisors(file, FREQUENCIES)
        parameters = {"rope_type": "longrope", "short_factor": divisors, "long_factor": divisors}
        return _made(parameters | {"attention_factor": 1.0}, ["type"], [FREQUENCIES])
    if LONG in file.tensors and SHORT in file.tensors:
        factor = _setting(file, architecture, "attn_factor")
        return _made(
            {
                "rope_type": "longrope",
                "short_factor": _divisors(file, SHORT),
                "long_factor": _divisors(file, LONG),
                "original_max_position_embeddings": _setting(file, architecture, "original_context_length"),
                "attention_factor": 1.0 if factor is None else factor,
            },
            ["type", "original_context_length", "attn_factor", "finetuned"],
            [SHORT, LONG],
        )
    factor = _setting(file, architecture, "factor")
    if kind == "linear":
        return _made({"rope_type": "linear", "factor": factor}, ["type", "factor", "finetuned"])
    if kind == "yarn":
        trained = _setting(file, architecture, "original_context_length")
        parameters = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
        parameters |= {name: _setting(file, architecture, key) for key, name in _YARN.items()}
        factors = _ATTENTION[:1] if scaled else _ATTENTION
        given = [value for name in factors if (value := _setting(file, architecture, name)) is not None]
        if given and factor is not None:
            usual = 0.1 * math.log(factor) + 1 if factor > 1 and not scaled else 1.0
            parameters["attention_factor"] = math.prod(given) * usual
        return _made(parameters, ["type", "factor", "original_context_length", "finetuned", *factors, *_YARN])
    if kind == "none":
        prefix = f"{architecture}.rope.scaling."
        return Stretched({}, frozenset(key[len(architecture) + 1 :] for key in file.metadata if key.startswith(prefix)))
    return Stretched({})


def _made(parameters: dict[str, Any], settings: list[str], tensors: list[str] | None = None) -> Stretched:
    return Stretched(parameters, frozenset(f"rope.scaling.{name}" for name in settings), frozenset(tensors or []))


def _setting(file: GgufFile, architecture: str, name: str) -> Any:
    """A text or a number; None where there is none."""
    key = f"{architecture}.rope.scaling.{name}"
    value = file.metadata.get(key)
    wanted = str if name == "type" else int if name == "original_context_length" else float
    if value is not None and type(value) is not wanted:
        file.bad(f"the setting {key!r} must be {'a text' if wanted is str else 'a number'}, not {value!r}")
    return value


def _divisors(file: GgufFile, name: str) -> list[float]:
    tensor = file.tensors[name]
    if len(tensor.shape) != 1 or tensor.shape[0] > MOST_HEAD:
        file.bad(f"tensor {name!r} has shape {tensor.shape}; a number for each pair of a head's values is wanted")
    return [float(value) for value in Weight(tensor.format, tensor.shape, file.view(tensor)).decode()]
