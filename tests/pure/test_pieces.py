"""Text as it is written: whole characters, no waiting, and stops wherever they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quickbrown.text.pieces import Pieces
from quickbrown.text.tokenizer import Tokenizer


class Bytes(Tokenizer):
    """Tokens 0 to 255 are bytes, 256 is special, and 257 on are pieces of text longer than a byte."""

    WORDS = ("hello", " the", "END", "é", "🙂"[:1], "\n\n")

    def __init__(self):
        self.special_ids = frozenset({256})
        self.vocab_size = 257 + len(self.WORDS)
        self._added = {256: b"<|end|>"} | {257 + i: word.encode() for i, word in enumerate(self.WORDS)}
        self._bytes = {i: bytes([i]) for i in range(256)}


TOKENIZER = Bytes()


def first_stop(text: str, stops) -> tuple[str, str | None]:
    """The definition: the stop that is complete first ends the text; of those that end together, the longest."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, None


def stream(groups, stop=()) -> tuple[list[str], str | None]:
    pieces = Pieces(TOKENIZER, stop)
    texts = [pieces.push(group) for group in groups]
    return [*texts, pieces.finish()], pieces.stopped


def test_a_character_comes_with_its_last_byte():
    smile = list("a🙂b".encode())
    assert stream([[byte] for byte in smile])[0] == ["a", "", "", "", "🙂", "b", ""]
    assert stream([smile[:2], smile[2:]])[0] == ["a", "🙂b", ""]


def test_words_do_not_wait_for_a_space():
    assert stream([[257], [258], [257]])[0] == ["hello", " the", "hello", ""]


def test_what_never_becomes_a_character():
    assert stream([[0xF0, 0x9F], [0x99]])[0] == ["", "", "\ufffd"]
    assert stream([[0xF0, 0x9F], list(b"a")])[0] == ["", "\ufffda", ""]
    assert stream([[0xFF], [0x80]])[0] == ["\ufffd", "\ufffd", ""]


def test_special_tokens_are_no_text():
    assert stream([[256, 257, 256], [256]])[0] == ["hello", "", ""]
    assert stream([[0xC3], [256], [0xA9]])[0] == ["", "", "é", ""]


def test_a_stop_is_held_back_and_cut():
    assert stream([[byte] for byte in b"ab\n\nUser: x"], ("\n\nUser:",)) == (["a", "b", *[""] * 10], "\n\nUser:")
    assert stream([[byte] for byte in b"ab\n\nUse."], ("\n\nUser:",)) == (["a", "b", *[""] * 5, "\n\nUse.", ""], None)
    assert stream([list(b"one END two"), list(b"more")], ("END",)) == (["one ", "", ""], "END")
    assert stream([list(b"one EN")], ("END",)) == (["one ", "EN"], None)
    assert stream([[257]], ("hello",)) == (["", ""], "hello")


@pytest.mark.parametrize(
    ("text", "stops", "left", "stopped"),
    [
        ("abcd", ("bc", "abcd"), "a", "bc"),
        ("xabc", ("c", "bc", "abc"), "x", "abc"),
        ("aab", ("ab",), "a", "ab"),
        ("aaab", ("aab",), "a", "aab"),
        ("abababc", ("ababc",), "ab", "ababc"),
        ("ab", ("abc", "b"), "a", "b"),
        ("xx", ("x", "x"), "", "x"),
    ],
)
def test_stops_that_overlap(text, stops, left, stopped):
    for groups in ([list(text.encode())], [[byte] for byte in text.encode()]):
        pieces, found = stream(groups, stops)
        assert ("".join(pieces), found) == (left, stopped)


def test_only_what_may_begin_a_stop_is_held():
    pieces = Pieces(TOKENIZER, ("aab",))
    assert [pieces.push([byte]) for byte in b"aaaxa"] == ["", "", "a", "aax", ""]
    assert pieces.finish() == "a"
    assert pieces.finish() == ""


def test_a_stop_in_the_last_bytes():
    """The replacement character comes at the end only, and may itself be a stop."""
    assert stream([list(b"a\xf0")], ("\ufffd",)) == (["a", ""], "\ufffd")


def test_refusals():
    with pytest.raises(ValueError, match="must not be empty"):
        Pieces(TOKENIZER, ("",))
    with pytest.raises(ValueError, match="out of range"):
        Pieces(TOKENIZER).push([999])


TOKENS = st.one_of(
    st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30),
    st.text(st.sampled_from("ab🙂é\n END"), max_size=20).map(lambda text: list(text.encode())),
)
STOPS = st.lists(st.text(st.sampled_from("ab🙂é\nEND\ufffd"), min_size=1, max_size=4), max_size=3).map(tuple)


@given(tokens=TOKENS, stops=STOPS, cuts=st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=600, deadline=None)
@example(tokens=list("é".encode()), stops=("é",), cuts=[1])
@example(tokens=list(b"aaab"), stops=("aab", "ab"), cuts=[1, 2, 3])
def test_joined_pieces_are_the_decoded_text_cut_at_the_first_stop(tokens, stops, cuts):
    edges = sorted({0, len(tokens), *(cut for cut in cuts if cut < len(tokens))})
    groups = [tokens[a:b] for a, b in itertools.pairwise(edges)]
    pieces, stopped = stream(groups, stops)
    text, expected = first_stop(TOKENIZER.decode(tokens), stops)
    assert ("".join(pieces), stopped) == (text, expected)


@given(st.text(max_size=30), STOPS)
@settings(max_examples=200, deadline=None)
def test_nothing_is_held_without_a_reason(text, stops):
    """After each whole character, what is held back is the longest ending that begins a stop, and no more."""
    pieces = Pieces(TOKENIZER, stops)
    given_out = ""
    for at, letter in enumerate(text):
        given_out += pieces.push(list(letter.encode()))
        if pieces.stopped is not None:
            return
        so_far = text[: at + 1]
        beginnings = [stop[:n] for stop in stops for n in range(len(stop))]
        held = max((len(b) for b in beginnings if so_far.endswith(b)), default=0)
        assert given_out == so_far[: len(so_far) - held]


def test_special_tokens_are_shown_where_asked():
    pieces = Pieces(TOKENIZER, ("d|>x",), skip_special=False)
    assert [pieces.push([i]) for i in (257, 256, 258)] == ["hello", "<|en", "d|> the"]
    assert Pieces(TOKENIZER, ("<|end|>",), skip_special=False).push([257, 256, 257]) == "hello"


class Blanks(Bytes):
    leading_blank = True


def test_the_blank_before_a_text_is_left_out_where_it_begins():
    """A vocabulary that writes a blank before the first word: texts that go on keep it, and only one is left out."""
    opening = Pieces(Blanks(), opening=True)
    assert [opening.push([i]) for i in (256, 258, 258)] == ["", "the", " the"]
    assert Pieces(Blanks(), opening=True).push(list(b"  x")) == " x"
    assert Pieces(Blanks(), opening=True).push(list(b"x y")) == "x y"
    assert Pieces(Blanks()).push([258]) == " the"
    assert Pieces(TOKENIZER, opening=True).push([258]) == " the"
