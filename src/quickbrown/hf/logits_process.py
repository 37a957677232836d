"""Logits processors, by their names in transformers: for a caller's own list, and to build others upon."""

from __future__ import annotations

import inspect
from typing import Any, cast

import numpy as np

from quickbrown.generation import filters, processors
from quickbrown.hf.arrays import as_kind, kind_of, to_numpy


class LogitsProcessor:
    """What a caller writes: __call__ takes ids (B, n) and scores (B, V), both of one kind, and gives new scores.

    generate() calls it for each row by itself, B = 1, with arrays of the kind of its input_ids.
    """

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __call__; a logits processor needs one")


class LogitsProcessorList(list[Any]):
    """Processors in order, callable as one. Keywords reach those that take more than ids and scores."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        for processor in self:
            more = list(inspect.signature(processor).parameters.values())[2:]
            needed = [
                p.name for p in more if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.default is p.empty
            ]
            if missing := [name for name in needed if name not in kwargs]:
                raise ValueError(f"{type(processor).__name__} also needs {', '.join(missing)}; pass them by name")
            every = any(p.kind is p.VAR_KEYWORD for p in more)
            names = {p.name for p in more}
            taken = {name: value for name, value in kwargs.items() if every or name in names}
            scores = processor(input_ids, scores, **taken)
        return scores


class _BuiltIn(LogitsProcessor):
    """One of `quickbrown.generation` for arrays of any kind: the next class among its bases.

    Scores come back in the kind and type in which they were given. device is accepted if it is the CPU.
    """

    def __init__(self, *args: Any, device: Any = "cpu", **kwargs: Any) -> None:
        if str(device) != "cpu":
            raise ValueError(f"device={device!r} is not there; logits are processed on the CPU")
        super().__init__(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})

    __signature__: inspect.Signature | None  # what help() shows: of the next class, unless a subclass has its own

    def __init_subclass__(cls) -> None:
        if _BuiltIn in cls.__bases__:
            cls.__signature__ = inspect.signature(cls.__bases__[1])
        elif "__init__" in cls.__dict__:
            cls.__signature__ = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        rows = to_numpy(scores)
        ids = to_numpy(input_ids).astype(np.int64, copy=False)
        process = cast(processors.Processor, super(LogitsProcessor, self)).__call__  # of the class behind this one
        out = process(ids, rows.astype(np.float32, copy=False))
        if out is rows:
            return scores
        result = as_kind(out.astype(rows.dtype, copy=False), kind_of(scores))
        return result.to(scores.dtype) if kind_of(scores) == "pt" else result


def _plain(value: Any) -> Any:
    return to_numpy(value) if kind_of(value) == "pt" else value


class MinLengthLogitsProcessor(_BuiltIn, processors.MinLength): ...


class MinNewTokensLengthLogitsProcessor(_BuiltIn, processors.MinNewTokensLength): ...


class ForcedBOSTokenLogitsProcessor(_BuiltIn, processors.ForcedBosToken): ...


class ForcedEOSTokenLogitsProcessor(_BuiltIn, processors.ForcedEosToken): ...


class ExponentialDecayLengthPenalty(_BuiltIn, processors.ExponentialDecayLength): ...


class SuppressTokensLogitsProcessor(_BuiltIn, processors.SuppressTokens): ...


class SuppressTokensAtBeginLogitsProcessor(_BuiltIn, processors.SuppressTokensAtBegin): ...


class PrefixConstrainedLogitsProcessor(_BuiltIn, processors.PrefixAllowedTokens): ...


class RepetitionPenaltyLogitsProcessor(_BuiltIn, processors.RepetitionPenalty): ...


class EncoderRepetitionPenaltyLogitsProcessor(_BuiltIn, processors.EncoderRepetitionPenalty): ...


class NoRepeatNGramLogitsProcessor(_BuiltIn, processors.NoRepeatNGram): ...


class EncoderNoRepeatNGramLogitsProcessor(_BuiltIn, processors.EncoderNoRepeatNGram): ...


class SequenceBiasLogitsProcessor(_BuiltIn, processors.SequenceBias): ...


class NoBadWordsLogitsProcessor(_BuiltIn, processors.NoBadWords): ...


class InfNanRemoveLogitsProcessor(_BuiltIn, processors.InfNanRemove): ...


class LogitNormalization(_BuiltIn, processors.LogitNormalization): ...


class TemperatureLogitsWarper(_BuiltIn, filters.Temperature): ...


class TopKLogitsWarper(_BuiltIn, filters.TopK): ...


class TopPLogitsWarper(_BuiltIn, filters.TopP): ...


class TopHLogitsWarper(_BuiltIn, filters.TopH): ...


class MinPLogitsWarper(_BuiltIn, filters.MinP): ...


class TypicalLogitsWarper(_BuiltIn, filters.Typical): ...


class EpsilonLogitsWarper(_BuiltIn, filters.Epsilon): ...


class EtaLogitsWarper(_BuiltIn, filters.Eta): ...
