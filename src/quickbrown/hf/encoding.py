"""Texts to rows of ids, cut to a length and padded to one. Nothing of that is kept: calls do not see each other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quickbrown.text.tokenizer import without_post_processor

if TYPE_CHECKING:
    import tokenizers
    from tokenizers import Encoding

PADDING = {False: None, "do_not_pad": None, True: "longest", "longest": "longest", "max_length": "max_length"}
TRUNCATION = {
    None: None,
    False: None,
    "do_not_truncate": None,
    True: "longest_first",
    "longest_first": "longest_first",
    "only_first": "only_first",
    "only_second": "only_second",
}
SIDES = ("left", "right")
NO_LIMIT = 10**20  # a model_max_length above this is none


@dataclass(frozen=True)
class Layout:
    """How rows are cut and padded.

    padding          "longest", "max_length" or None
    truncation       "longest_first", "only_first", "only_second" or None
    max_length       to cut or pad to; None where there is no limit
    stride           how many tokens of a cut row stand at the beginning of the next again
    multiple         padded lengths are multiples of this; None or 1 is off
    padding_side     "left" or "right"
    truncation_side  where tokens are cut off
    """

    padding: str | None
    truncation: str | None
    max_length: int | None
    stride: int
    multiple: int | None
    padding_side: str
    truncation_side: str


def layout(
    padding: bool | str,
    truncation: bool | str | None,
    max_length: int | None,
    stride: int,
    multiple: int | None,
    padding_side: str,
    truncation_side: str,
    model_max_length: int,
) -> Layout:
    """What the arguments of a tokenizer ask for. Raises ValueError, with a sentence, for values out of range."""
    pad = _choice("padding", padding, PADDING)
    cut = _choice("truncation", truncation, TRUNCATION)
    for name, value, least in (
        ("max_length", max_length, 0),
        ("stride", stride, 0),
        ("pad_to_multiple_of", multiple, 1),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    for name, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
        if side not in SIDES:
            raise ValueError(f"{name} must be left or right, not {side!r}")
    if max_length is None:
        known = None if model_max_length > NO_LIMIT else model_max_length
        if pad == "max_length" and known is None:
            raise ValueError("padding='max_length' needs max_length: the model does not say how long its texts can be")
        max_length, cut = (known if cut or pad == "max_length" else None), cut if known is not None else None
    elif truncation is None and padding is False:
        cut = "longest_first"
    elif cut is None and pad != "max_length":
        warnings.warn(
            "max_length changes nothing here: add truncation=True to cut to it, or padding='max_length' to pad to it",
            stacklevel=3,
        )
    if cut and pad and multiple and max_length is not None and max_length % multiple:
        raise ValueError(f"max_length={max_length} must be a multiple of pad_to_multiple_of={multiple}")
    return Layout(pad, cut, max_length, stride, multiple, padding_side, truncation_side)


def _choice(name: str, value: Any, choices: dict[Any, Any]) -> Any:
    value = getattr(value, "value", value)  # of an enum
    if not isinstance(value, (str, bool, type(None))) or value not in choices:
        named = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {named}, not {value!r}")
    return choices[value]


Text = str | list[str]  # one text, or the words of one
Row = Text | tuple[Text, Text]  # a text, or a pair


def rows_of(text: Any, pair: Any, words: bool) -> tuple[list[Row], bool]:
    """The texts and pairs that a caller asks for, and whether they came in a list.

    words  each text is a list of words

    Raises TypeError for what is no text, ValueError for lists of different lengths.
    """
    if isinstance(text, (list, tuple)):
        several = not words or bool(text and isinstance(text[0], (list, tuple)))
    else:
        several = False
    if not several:
        first = _text(text, words, "text")
        return [(first, _text(pair, words, "text_pair")) if pair else first], False
    if pair is None:
        return [_row(row, words) for row in text], True
    if not isinstance(pair, (list, tuple)):
        raise TypeError(f"text is a list, so text_pair must be one of the same length, not {type(pair).__name__}")
    if len(text) != len(pair):
        raise ValueError(f"text has {len(text)} entries and text_pair has {len(pair)}; they must be as many")
    return [(_text(a, words, "text"), _text(b, words, "text_pair")) for a, b in zip(text, pair, strict=True)], True


def _row(row: Any, words: bool) -> Row:
    nested = isinstance(row, (list, tuple)) and len(row) == 2
    if nested and (not words or all(isinstance(text, (list, tuple)) for text in row)):
        return _text(row[0], words, "text"), _text(row[1], words, "text_pair")
    return _text(row, words, "text")


def _text(text: Any, words: bool, name: str) -> Text:
    if words:
        if not isinstance(text, (list, tuple)):
            raise TypeError(f"{name} must be a list of words (is_split_into_words=True), not {type(text).__name__}")
        return [str(_text(word, False, "a word")) for word in text]
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or a list of them, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which no Unicode text does") from None
    return text


def encode(
    raw: tokenizers.Tokenizer, rows: Sequence[Row], how: Layout, words: bool, special: bool, pad: tuple[int, str] | None
) -> tuple[list[Encoding], list[Encoding]]:
    """The rows' tokens, and the same before they were cut; what was cut off a row is in its `overflowing`.

    words    each text is a list of words
    special  put the model's special tokens around each row
    pad      id and text of the token to pad with

    Raises ValueError where a row cannot be cut as asked, or padded for want of a token.
    """
    try:
        found = _encoded(raw, rows, words, special)
    except Exception as error:  # the library raises plain Exception where there is no token for what is unknown
        raise ValueError(f"the vocabulary cannot write the text: {error}") from None
    most, wholes = how.max_length, found
    if how.truncation and most is not None and any(len(row.ids) > most for row in found):
        plain = without_post_processor(raw)
        found = [
            _cut(raw, plain, rows[i], row, how, most, words, special) if len(row.ids) > most else row
            for i, row in enumerate(found)
        ]
    if how.padding and found:
        if pad is None:
            raise ValueError(NO_PAD)
        length = padded_length(max(len(row.ids) for row in found), how)
        for row in found:
            row.pad(length, direction=how.padding_side, pad_id=pad[0], pad_token=pad[1])
    return found, wholes


def _encoded(raw: tokenizers.Tokenizer, rows: Sequence[Row], words: bool, special: bool) -> list[Encoding]:
    if len(rows) == 1:  # several are encoded on threads, and a process that started some cannot be forked well
        text, pair = rows[0] if isinstance(rows[0], tuple) else (rows[0], None)
        return [raw.encode(text, pair, is_pretokenized=words, add_special_tokens=special)]
    return list(raw.encode_batch(list(rows), is_pretokenized=words, add_special_tokens=special)) if rows else []


NO_PAD = "there is no token to pad with; set one: tokenizer.pad_token = tokenizer.eos_token"


def padded_length(longest: int, how: Layout) -> int:
    length = how.max_length if how.padding == "max_length" and how.max_length is not None else longest
    return -(-length // how.multiple) * how.multiple if how.multiple else length


def _cut(
    raw: tokenizers.Tokenizer,
    plain: tokenizers.Tokenizer,
    row: Row,
    whole: Encoding,
    how: Layout,
    most: int,
    words: bool,
    special: bool,
) -> Encoding:
    """The row at `most` tokens: its texts are cut, then special tokens are put around what is left."""
    pair = isinstance(row, tuple)
    room = most - (raw.num_special_tokens_to_add(pair) if special else 0)
    if room < 0:
        raise ValueError(f"max_length={most} leaves no room for the special tokens of a row")
    texts = row if isinstance(row, tuple) else (row,)
    parts = [plain.encode(text, is_pretokenized=words, add_special_tokens=False) for text in texts]
    lengths = [len(part.ids) for part in parts]
    for part, kept in zip(parts, _kept(lengths, room, how.truncation), strict=True):
        if kept < len(part.ids):
            if how.stride and how.stride >= kept:
                raise ValueError(f"stride={how.stride} must be below what is left of a cut text, {kept} tokens")
            part.truncate(kept, stride=how.stride, direction=how.truncation_side)
    return raw.post_process(parts[0], parts[1] if pair else None, special)


def _kept(lengths: list[int], room: int, truncation: str | None) -> list[int]:
    """How many tokens of each text of a row fit, together, into `room`. Raises ValueError."""
    over = sum(lengths) - room
    if truncation == "longest_first":
        if len(lengths) == 1:
            return [room]
        short = min(lengths) if 2 * min(lengths) <= room else room // 2
        return [short, room - short] if lengths[0] <= lengths[1] else [room - short, short]
    at = 0 if truncation == "only_first" else 1
    if at >= len(lengths):
        raise ValueError("truncation='only_second' needs pairs of texts")
    if lengths[at] <= over:
        which = ("first", "second")[at]
        raise ValueError(
            f"truncation='only_{which}' cannot make a row fit: its {which} text is shorter than the excess"
        )
    return [length - over if i == at else length for i, length in enumerate(lengths)]


def type_ids(row: Encoding, whole: Encoding) -> list[int]:
    """The number that a model tells the texts of a pair apart by, 0 or 1, for each token of a row.

    whole  the row before it was cut: of what was cut off, the library does not know
    """
    kinds = dict(zip(whole.sequence_ids, whole.type_ids, strict=True))
    return [own if text is None else kinds[text] for own, text in zip(row.type_ids, row.sequence_ids, strict=True)]
