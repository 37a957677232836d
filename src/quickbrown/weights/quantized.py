"""The weights of a quantized checkpoint, each in the place of the tensors that it is published in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.quant.encodings import Encoding, encoding, is_skipped, skipped
from quickbrown.quant.published import Published
from quickbrown.quant.weight import Weight
from quickbrown.weights.source import bad_file

_PLAIN = ".weight"
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Quantized:
    """A weight, and the names of the tensors that it is made of."""

    weight: Weight
    tensors: tuple[str, ...]


def quantized(
    config: Any, tensors: Mapping[str, Published], where: object
) -> tuple[Encoding, dict[str, Quantized], list[str]]:
    """What the quantization_config of a checkpoint says of its tensors: the encoding, the quantized weights by their
    names, and the names of tensors that no weight needs. `where` is the checkpoint, for errors.

    Raises BadFile for what is not read, for tensors that do not fit together, for a weight that is there quantized and
    as it was, and for one that is quantized where the config says that it is not.
    """
    if not isinstance(config, dict):
        raise bad_file(where, f"its quantization_config is {config!r}, not an object")
    try:
        read, plain = encoding(config), skipped(config)
    except ValueError as error:
        raise bad_file(where, f"its weights are quantized in a way that is not read: {error}") from None
    found: dict[str, Quantized] = {}
    for module, names in _modules(read, tensors).items():
        weight_name = module if all(suffix.startswith("_") for suffix in names) else module + _PLAIN
        if weight_name in tensors and weight_name not in names.values():
            raise bad_file(where, f"holds the weight {weight_name!r} quantized and as it was")
        if is_skipped(module, plain):
            raise bad_file(where, f"holds {module!r} quantized, and its config says that it is not")
        try:
            weight = read.weight({suffix: tensors[name] for suffix, name in names.items()})
        except ValueError as error:
            raise bad_file(where, f"the quantized weight {weight_name!r} cannot be read: {error}") from None
        found[weight_name] = Quantized(weight, tuple(names.values()))
    return read, found, [name for name in tensors if name.endswith(read.unread)]


def _modules(read: Encoding, tensors: Mapping[str, Published]) -> dict[str, dict[str, str]]:
    """Module -> suffix -> tensor, of every module that has more than a plain weight, or one that is no float."""
    longest = sorted(read.suffixes, key=len, reverse=True)
    modules: dict[str, dict[str, str]] = {}
    for name in tensors:
        suffix = next((s for s in longest if name.endswith(s) and len(name) > len(s)), None)
        if suffix is not None:
            modules.setdefault(name.removesuffix(suffix), {})[suffix] = name
    return {
        module: parts
        for module, parts in modules.items()
        if parts.keys() != {_PLAIN} or tensors[parts[_PLAIN]].dtype not in _FLOATS
    }
