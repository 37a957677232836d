"""What changes a row of logits before a token is chosen from it, by the names and in the order of transformers.

`__call__` is what a processor means. Where that is a few plain edits of a row, there is `edits` too, for the sampler to
make itself: those of a row of `width` scores after a text, whose tokens are below that, or None if no edits say it.
They are the same float32 operations in the same order, equal bit for bit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from quickbrown.generation.filters import (
    OUT,
    Epsilon,
    Eta,
    Ids,
    Mask,
    MinP,
    Scores,
    Temperature,
    TopH,
    TopK,
    TopP,
    Typical,
    log_softmax,
    number,
    quiet,
    whole,
)
from quickbrown.generation.history import History
from quickbrown.types import Edit, EditKind


class Processor(Protocol):
    """Scores (B, V) float32 of the tokens that may follow ids (B, n) int64, to new ones; it changes neither."""

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores: ...


def _ids(value: Any, name: str) -> Ids:
    """(k,) int64 of one token id or several. Raises ValueError for anything else."""
    ids = np.atleast_1d(np.asarray(value))
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be a token id or several, not {value!r}")
    return ids.astype(np.int64)


def _without(scores: Scores, ids: Ids) -> Scores:
    """The scores, those of some tokens at -inf; tokens beyond the vocabulary are none."""
    out = scores.copy()
    out[:, ids[(ids >= 0) & (ids < scores.shape[1])]] = OUT
    return out


def _put(ids: Ids | npt.NDArray[np.int32], value: float, width: int) -> list[Edit]:
    """The edit that gives tokens a score; those beyond the vocabulary are none."""
    known = ids[(ids >= 0) & (ids < width)].astype(np.int32)
    return [Edit(EditKind.PUT, known, np.array([value], np.float32))] if known.size else []


# Lengths and forced tokens


class MinLength:
    """No end before ids have `min_length` tokens, prompt included."""

    def __init__(self, min_length: int, eos_token_id: Any) -> None:
        self.min_length = whole(min_length, "min_length", 0)
        self.eos_token_id = _ids(eos_token_id, "eos_token_id")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return _without(scores, self.eos_token_id) if input_ids.shape[1] < self.min_length else scores

    def edits(self, history: History, width: int) -> list[Edit]:
        return _put(self.eos_token_id, OUT, width) if len(history.tokens) < self.min_length else []


class MinNewTokensLength:
    """No end before `min_new_tokens` tokens follow a prompt of `prompt_length_to_skip`."""

    def __init__(self, prompt_length_to_skip: int, min_new_tokens: int, eos_token_id: Any) -> None:
        self.prompt_length_to_skip = whole(prompt_length_to_skip, "prompt_length_to_skip", 0)
        self.min_new_tokens = whole(min_new_tokens, "min_new_tokens", 0)
        self.eos_token_id = _ids(eos_token_id, "eos_token_id")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        short = input_ids.shape[1] - self.prompt_length_to_skip < self.min_new_tokens
        return _without(scores, self.eos_token_id) if short else scores

    def edits(self, history: History, width: int) -> list[Edit]:
        short = len(history.tokens) - self.prompt_length_to_skip < self.min_new_tokens
        return _put(self.eos_token_id, OUT, width) if short else []


class _Forced:
    """One of some tokens at one length, whatever the scores."""

    def __init__(self, length: int, ids: Ids) -> None:
        self._length, self._ids = length, ids

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        if input_ids.shape[1] != self._length:
            return scores
        out = np.full_like(scores, OUT)
        out[:, self._ids] = 0
        return out

    def edits(self, history: History, width: int) -> list[Edit] | None:
        if len(history.tokens) != self._length:
            return []
        if (self._ids >= width).any():
            return None
        nothing = Edit(EditKind.ONLY, np.zeros(-(-width // 32), np.int32), np.empty(0, np.float32))
        return [nothing, *_put(self._ids, 0, width)]


class ForcedBosToken(_Forced):
    """The first token after a prompt of one token is `bos_token_id`."""

    def __init__(self, bos_token_id: int) -> None:
        self.bos_token_id = whole(bos_token_id, "bos_token_id", 0)
        super().__init__(1, _ids(bos_token_id, "bos_token_id"))


class ForcedEosToken(_Forced):
    """The token that makes the text `max_length` long, prompt included, is one of `eos_token_id`."""

    def __init__(self, max_length: int, eos_token_id: Any) -> None:
        self.max_length = max_length
        self.eos_token_id = _ids(eos_token_id, "eos_token_id")
        if (self.eos_token_id < 0).any():
            raise ValueError(f"eos_token_id must be token ids, not {eos_token_id!r}")
        super().__init__(max_length - 1, self.eos_token_id)


class ExponentialDecayLength:
    """An end grows likelier with every token after `start` new ones: its score rises by |score| * (factor**k - 1)."""

    def __init__(
        self, exponential_decay_length_penalty: tuple[int, float], eos_token_id: Any, input_ids_seq_length: int
    ) -> None:
        start, factor = exponential_decay_length_penalty
        self.regulation_start = start + input_ids_seq_length
        self.regulation_factor = factor
        self.eos_token_id = _ids(eos_token_id, "eos_token_id")
        if (self.eos_token_id < 0).any():
            raise ValueError(f"eos_token_id must be token ids, not {eos_token_id!r}")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        steps = input_ids.shape[1] - self.regulation_start
        if steps <= 0:
            return scores
        with quiet():
            rise = min(float(np.power(float(self.regulation_factor), steps)) - 1, float(np.finfo(np.float32).max))
            found = scores[:, self.eos_token_id]
            risen = found + np.abs(found) * np.float32(rise)
        out = scores.copy()
        out[:, self.eos_token_id] = np.where(np.isfinite(found), risen, found)
        return out


class SuppressTokens:
    """Some tokens never."""

    def __init__(self, suppress_tokens: Iterable[int]) -> None:
        self.suppress_tokens = _ids(list(suppress_tokens), "suppress_tokens")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return _without(scores, self.suppress_tokens)

    def edits(self, history: History, width: int) -> list[Edit]:
        return _put(self.suppress_tokens, OUT, width)


class SuppressTokensAtBegin:
    """Some tokens not where ids have `begin_index` tokens."""

    def __init__(self, begin_suppress_tokens: Iterable[int], begin_index: int) -> None:
        self.begin_suppress_tokens = _ids(list(begin_suppress_tokens), "begin_suppress_tokens")
        self.begin_index = begin_index

    def set_begin_index(self, begin_index: int) -> None:
        self.begin_index = begin_index

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return _without(scores, self.begin_suppress_tokens) if input_ids.shape[1] == self.begin_index else scores

    def edits(self, history: History, width: int) -> list[Edit]:
        return _put(self.begin_suppress_tokens, OUT, width) if len(history.tokens) == self.begin_index else []


class PrefixAllowedTokens:
    """Only the tokens that a function of the prompt's number and a text's ids allows.

    Rows stand in groups of `num_beams` to a prompt. Where all allowed tokens of a group are at -inf, they become
    equally likely instead. Raises ValueError where the function allows none, or one beyond the vocabulary.
    """

    def __init__(self, prefix_allowed_tokens_fn: Callable[[int, Ids], Any], num_beams: int = 1) -> None:
        self._allowed, self._num_beams = prefix_allowed_tokens_fn, num_beams

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        out = np.full_like(scores, OUT)
        ids = []
        for row, text in enumerate(input_ids):
            found = _ids(self._allowed(row // self._num_beams, text), "what prefix_allowed_tokens_fn returns")
            if not found.size:
                raise ValueError(
                    f"prefix_allowed_tokens_fn allows no token after prompt {row // self._num_beams}; "
                    "return at least one, such as the end-of-text token"
                )
            if found.min() < 0 or found.max() >= scores.shape[1]:
                raise ValueError(f"prefix_allowed_tokens_fn allows a token beyond the vocabulary of {scores.shape[1]}")
            out[row, found] = scores[row, found]
            ids.append(found)
        stuck = (out == OUT).all(-1).reshape(-1, self._num_beams).all(-1)
        for row in np.flatnonzero(stuck.repeat(self._num_beams)).tolist():
            out[row, ids[row]] = 0
        return out


# Repetition


def _penalized(scores: Scores, ids: Ids, penalty: float, counted: Mask | None = None) -> Scores:
    """Scores of the tokens of ids (B, n) divided by the penalty, or times it where negative; once for each token.

    counted  (B, n), which ids count; all unless given
    """
    valid = (ids >= 0) & (ids < scores.shape[1])
    rows, at = np.nonzero(valid if counted is None else valid & counted)
    tokens = ids[rows, at]
    found = scores[rows, tokens]
    out = scores.copy()
    with quiet():
        out[rows, tokens] = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))
    return out


class RepetitionPenalty:
    """Tokens of the text, prompt included, are `penalty` times less likely in terms of scores; below 1, more.

    prompt_ignore_length  how many ids at the beginning do not count: of all rows, or (B,) of each
    """

    def __init__(self, penalty: float, prompt_ignore_length: int | Ids | None = None) -> None:
        self.penalty = number(penalty, "penalty", lambda x: x > 0, "a number above 0")
        if prompt_ignore_length is not None and not isinstance(prompt_ignore_length, np.ndarray):
            whole(prompt_ignore_length, "prompt_ignore_length", 0)
        self.prompt_ignore_length = prompt_ignore_length

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        ignore = self.prompt_ignore_length
        if isinstance(ignore, np.ndarray):
            if ignore.shape != (len(input_ids),):
                raise ValueError(f"prompt_ignore_length must have one entry for each of the {len(input_ids)} rows")
            return _penalized(scores, input_ids, self.penalty, np.arange(input_ids.shape[1]) >= ignore[:, None])
        return _penalized(scores, input_ids[:, ignore:], self.penalty)

    def edits(self, history: History, width: int) -> list[Edit] | None:
        if self.prompt_ignore_length is not None:
            return None
        return [Edit(EditKind.SCALE, history.distinct(), np.array([self.penalty], np.float32))]


class EncoderRepetitionPenalty:
    """Tokens of the prompt, (P, n) ids, are `penalty` times likelier in terms of scores. B is a multiple of P."""

    def __init__(self, penalty: float, encoder_input_ids: Ids) -> None:
        self.penalty = 1 / number(penalty, "penalty", lambda x: x > 0, "a number above 0")
        self.encoder_input_ids = np.atleast_2d(encoder_input_ids)
        self._distinct = np.unique(self.encoder_input_ids).astype(np.int32)

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        prompts = self.encoder_input_ids.repeat(len(scores) // len(self.encoder_input_ids), 0)
        return _penalized(scores, prompts, self.penalty)

    def edits(self, history: History, width: int) -> list[Edit] | None:
        if len(self.encoder_input_ids) > 1:
            return None
        known = self._distinct[(self._distinct >= 0) & (self._distinct < width)]
        return [Edit(EditKind.SCALE, known, np.array([self.penalty], np.float32))]


class NoRepeatNGram:
    """No token that would complete a run of `ngram_size` tokens which the text, prompt included, has already."""

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = whole(ngram_size, "ngram_size", 1)

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return _without_runs(input_ids, input_ids, self.ngram_size, scores)

    def edits(self, history: History, width: int) -> list[Edit]:
        return _put(history.completing(self.ngram_size, history.tokens), OUT, width)


class EncoderNoRepeatNGram:
    """No token that would complete a run of tokens which the prompt, (P, n) ids, has. B is a multiple of P."""

    def __init__(self, encoder_ngram_size: int, encoder_input_ids: Ids) -> None:
        self.ngram_size = whole(encoder_ngram_size, "encoder_ngram_size", 1)
        self.encoder_input_ids = np.atleast_2d(encoder_input_ids)
        self._prompt = History(self.encoder_input_ids[0].tolist())

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        prompts = self.encoder_input_ids.repeat(len(scores) // len(self.encoder_input_ids), 0)
        return _without_runs(prompts, input_ids, self.ngram_size, scores)

    def edits(self, history: History, width: int) -> list[Edit] | None:
        if len(self.encoder_input_ids) > 1:
            return None
        return _put(self._prompt.completing(self.ngram_size, history.tokens), OUT, width)


def _without_runs(texts: Ids, input_ids: Ids, size: int, scores: Scores) -> Scores:
    """The scores without tokens that, after the ids (B, n), would complete a run of `size` in texts (B, m)."""
    if texts.shape[1] < size or input_ids.shape[1] < size - 1:
        return scores
    runs = np.lib.stride_tricks.sliding_window_view(texts, size, axis=1)  # (B, m - size + 1, size)
    ends = input_ids[:, input_ids.shape[1] + 1 - size :]
    out = scores.copy()
    for row in range(len(scores)):
        banned = runs[row, (runs[row, :, :-1] == ends[row]).all(-1), -1]
        out[row, banned[(banned >= 0) & (banned < scores.shape[1])]] = OUT
    return out


# Single words


class SequenceBias:
    """Adds a number to the last token's score of each sequence of tokens whose beginning the text ends with.

    sequence_bias  {(ids): number}, or a list of [ids, number]
    """

    def __init__(self, sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Any]) -> None:
        try:
            pairs = list(sequence_bias.items() if isinstance(sequence_bias, Mapping) else sequence_bias)
            self.sequence_bias = {tuple(map(operator.index, ids)): float(bias) for ids, bias in pairs}
        except (TypeError, ValueError, AttributeError):
            self.sequence_bias = {}
        if not self.sequence_bias or not all(ids and min(ids) >= 0 for ids in self.sequence_bias):
            raise ValueError(
                "sequence_bias must map tuples of token ids to numbers, or list [ids, number], "
                f"with at least one entry, not {sequence_bias!r}"
            )
        self._last = np.array([ids[-1] for ids in self.sequence_bias])
        self._bias = np.array(list(self.sequence_bias.values()), np.float32)
        self._most = max(max(ids) for ids in self.sequence_bias)
        self._longest = max(map(len, self.sequence_bias))

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        if self._most >= scores.shape[1]:
            raise ValueError(f"token {self._most} of sequence_bias is beyond the vocabulary of {scores.shape[1]}")
        out = scores.copy()
        for row, text in enumerate(input_ids):
            due = self._due(text[-self._longest :].tolist())
            with quiet():
                np.add.at(out[row], self._last[due], self._bias[due])
        return out

    def _due(self, tail: list[int]) -> list[bool]:
        """Which sequences a text that ends so has all tokens of but the last."""
        return [len(ids) == 1 or tuple(tail[1 - len(ids) :]) == ids[:-1] for ids in self.sequence_bias]

    def edits(self, history: History, width: int) -> list[Edit] | None:
        if self._most >= width:
            return None
        due = self._due(history.tokens[-self._longest :])
        ids = self._last[due].astype(np.int32)
        return [Edit(EditKind.ADD, ids, self._bias[due])] if ids.size else []


class NoBadWords:
    """Sequences of tokens that are never completed. A lone end token among them is passed over.

    bad_words_ids  lists of token ids
    """

    def __init__(self, bad_words_ids: Sequence[Sequence[int]], eos_token_id: Any = None) -> None:
        ends = set() if eos_token_id is None else set(_ids(eos_token_id, "eos_token_id").tolist())
        if not isinstance(bad_words_ids, (list, tuple)) or not bad_words_ids:
            raise ValueError(f"bad_words_ids must be a list of lists of token ids, not {bad_words_ids!r}")
        self.bad_word_ids = bad_words_ids
        words = [list(word) for word in bad_words_ids if isinstance(word, (list, tuple))]
        if len(words) < len(bad_words_ids):
            raise ValueError(f"bad_words_ids must be a list of lists of token ids, not {bad_words_ids!r}")
        banned = [word for word in words if not (len(word) == 1 and word[0] in ends)]
        self._bias = SequenceBias({tuple(word): OUT for word in banned}) if banned else None

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return scores if self._bias is None else self._bias(input_ids, scores)

    def edits(self, history: History, width: int) -> list[Edit] | None:
        return [] if self._bias is None else self._bias.edits(history, width)


# Repairs


class InfNanRemove:
    """nan becomes 0, inf and -inf the largest and smallest number there is."""

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return np.nan_to_num(scores, nan=0.0)


class LogitNormalization:
    """Log-probabilities: log_softmax of the scores."""

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return log_softmax(scores)


# All of a config


def filters_beyond_native(config: Any) -> bool:
    """Whether a config draws with filters that the sampler itself does not have."""
    return (
        config.top_h is not None
        or config.typical_p < 1
        or config.epsilon_cutoff > 0
        or config.eta_cutoff > 0
        or config.top_p == 0
    )


def build(
    config: Any,
    *,
    prompt: Sequence[int],
    new_tokens: int,
    eos_ids: Iterable[int],
    vocab_size: int,
    padding: int = 0,
    prefix_fn: Callable[[int, Ids], Any] | None = None,
    user: Sequence[Any] = (),
    warpers: bool = True,
) -> list[Any]:
    """The processors that one prompt's texts need, in order; each is called with ids without padding.

    config      fields of generation_config.json by name, all that have a default set
    prompt      its token ids, without padding
    new_tokens  how many tokens may follow it
    padding     how many pads stand before it in its batch: lengths in the config count them
    prefix_fn   (0, ids) to the ids that may follow
    user        the caller's own, behind those that change logits; one that is a kind of those stands in its place
    warpers     whether the filters for drawing are wanted too

    Raises ValueError for a token beyond the vocabulary.
    """
    ends = np.array([i for i in eos_ids if 0 <= i < vocab_size], np.int64)
    ids = np.array([prompt], np.int64)
    length = len(prompt)
    _check_ids(config, vocab_size)
    chain: list[Any] = []
    if config.sequence_bias is not None:
        chain.append(SequenceBias(config.sequence_bias))
    if config.encoder_repetition_penalty != 1:
        chain.append(EncoderRepetitionPenalty(config.encoder_repetition_penalty, ids))
    if config.repetition_penalty != 1:
        chain.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        chain.append(NoRepeatNGram(config.no_repeat_ngram_size))
    if config.encoder_no_repeat_ngram_size:
        chain.append(EncoderNoRepeatNGram(config.encoder_no_repeat_ngram_size, ids))
    if config.bad_words_ids is not None:
        chain.append(NoBadWords(config.bad_words_ids, ends))
    if config.min_length > length + padding and config.min_new_tokens is None and ends.size:
        chain.append(MinLength(config.min_length - padding, ends))
    if config.min_new_tokens and ends.size:
        chain.append(MinNewTokensLength(length, config.min_new_tokens, ends))
    if prefix_fn is not None:
        chain.append(PrefixAllowedTokens(prefix_fn))
    if config.forced_bos_token_id is not None and length + padding == 1:
        chain.append(ForcedBosToken(config.forced_bos_token_id))
    if config.forced_eos_token_id is not None:
        chain.append(ForcedEosToken(length + new_tokens, config.forced_eos_token_id))
    if config.remove_invalid_values:
        chain.append(InfNanRemove())
    if config.exponential_decay_length_penalty is not None and ends.size:
        chain.append(ExponentialDecayLength(config.exponential_decay_length_penalty, ends, length))
    if config.suppress_tokens:
        chain.append(SuppressTokens(config.suppress_tokens))
    if config.begin_suppress_tokens:
        behind = config.forced_bos_token_id is not None and length + padding == 1
        chain.append(SuppressTokensAtBegin(config.begin_suppress_tokens, length + behind))

    instead = {i: own for i, default in enumerate(chain) for own in user if isinstance(own, type(default))}
    chain = [instead.get(i, default) for i, default in enumerate(chain)]
    chain += [own for own in user if not any(own is known for known in chain)]

    if warpers:
        if config.temperature != 1:
            chain.append(Temperature(config.temperature))
        if config.top_h is not None:
            chain.append(TopH(config.top_h))
        if config.top_k:
            chain.append(TopK(config.top_k))
        if config.top_p < 1:
            chain.append(TopP(config.top_p))
        if config.min_p:
            chain.append(MinP(config.min_p))
        if config.typical_p < 1:
            chain.append(Typical(config.typical_p))
        if config.epsilon_cutoff > 0:
            chain.append(Epsilon(config.epsilon_cutoff))
        if config.eta_cutoff > 0:
            chain.append(Eta(config.eta_cutoff))
    if config.renormalize_logits:
        chain.append(LogitNormalization())
    return chain


def _check_ids(config: Any, vocab_size: int) -> None:
    """Raise ValueError for a token beyond the vocabulary where it would mean something."""
    for name in ("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"):
        value = getattr(config, name)
        if value is not None and any(i >= vocab_size for i in _ids(value, name)):
            raise ValueError(f"{name}={value!r} is beyond the vocabulary of {vocab_size} tokens")
