"""What comes back of generate, chat and stream: in which shape, in which order, and when."""

from __future__ import annotations

import pytest

from quickbrown import Finish, FinishReason
from tiny_llm import CHAT, LENGTH, SAMPLED, alone, held, ids, said


def test_of_generate(llm):
    """A text for a text, a list for a list, n in the place of each: told apart by their seeds, which are all
    different, so that a row in the wrong place is another text."""
    prompts = ["Once upon a time", "Twice", ids(70)]
    options = {**SAMPLED, "seed": [3, 4, 5]}
    rows = llm.generate(prompts, **options)
    assert [row.seed for row in rows] == [3, 4, 5]
    assert [row.prompt_tokens for row in rows] == [len(llm.tokenizer.encode(p)) for p in prompts[:2]] + [70]
    assert said(llm.generate(prompts[0], **{**options, "seed": [3]})) == said(rows[0])
    assert [[said(c) for c in row] for row in llm.generate(prompts, n=1, **options)] == [[said(c)] for c in rows]
    three = llm.generate(prompts, n=3, **options)
    assert [len(row) for row in three] == [3, 3, 3]
    assert [said(row[0]) for row in three] == [said(row) for row in rows]
    assert len({c.text for row in three for c in row}) == 9
    first = llm.generate(prompts[0], n=3, **{**options, "seed": [3]})
    assert [said(c) for c in first] == [said(c) for c in three[0]]
    assert llm.generate([], **SAMPLED) == []


def test_a_prompt_may_be_text_tokens_or_a_conversation(llm):
    """Each is written down in its own way, in one list; the same tokens give the same text."""
    conversation = llm.template.render(CHAT)
    mixed = llm.generate(["Once", llm.tokenizer.encode("Once"), CHAT, conversation], **SAMPLED, seed=[1, 1, 2, 2])
    mixed = [said(row) for row in mixed]
    assert mixed[0] == mixed[1] != mixed[2] == mixed[3]
    assert mixed[2].prompt_tokens == len(llm.tokenizer.encode(conversation))
    assert said(llm.chat(CHAT, **SAMPLED, seed=[2])) == mixed[2]


def test_of_chat(llm):
    other = [*CHAT, {"role": "assistant", "content": "A fox."}, {"role": "user", "content": "Why?"}]
    one, two = (said(c) for c in llm.chat([CHAT, other], **SAMPLED, seed=[1, 2]))
    assert said(llm.chat(CHAT, **SAMPLED, seed=[1])) == one
    assert said(llm.chat(other, **SAMPLED, seed=[2])) == two
    several = llm.chat([CHAT, other], n=2, **SAMPLED, seed=[1, 2])
    assert [said(row[0]) for row in several] == [one, two]
    assert [said(c) for c in llm.chat(CHAT, n=2, **SAMPLED, seed=[1])] == [said(c) for c in several[0]]
    assert said(llm.stream_chat(CHAT, **SAMPLED, seed=[1]).read()) == one


def test_rows_of_a_stream_are_prompt_times_n_plus_sample(llm):
    """Six texts, all different: pieces added up by row are those of `generate`, in its order."""
    prompts = ["Once", ids(70), "Twice"]
    rows = [c for row in llm.generate(prompts, n=2, **SAMPLED, seed=8) for c in row]
    assert len({c.text for c in rows}) == 6
    stream = llm.stream_batch(prompts, n=2, **SAMPLED, seed=8)
    texts = [""] * 6
    order = []
    for row, piece in stream:
        assert piece
        texts[row] += piece
        order.append(row)
    assert texts == [c.text for c in rows]
    assert [said(c) for c in stream.completions] == [said(c) for c in rows]
    assert sorted(order) != order, "they are not written together"


@pytest.mark.parametrize("stops", [0, 1, 3])
def test_a_stream_is_generate_in_pieces(llm, stops):
    """Also where a piece ends within a character of several bytes, or a stop string is held back: the text has
    such characters, and stop strings that end it at one of them."""
    options = {**SAMPLED, "max_new_tokens": 250, "seed": [1]}
    whole = llm.generate("Once upon a time", **options)
    assert whole.text == llm.tokenizer.decode(whole.tokens)
    wide = [i for i, letter in enumerate(whole.text) if letter > "\x7f" and letter != "\ufffd"]
    assert len(wide) > 3
    at = wide[3]
    options["stop"] = [whole.text[at - stops : at + 1], "never" + whole.text[at]][: 2 * stops]
    written = llm.generate("Once upon a time", **options)
    stream = llm.stream("Once upon a time", **options)
    pieces = list(stream)
    assert len(pieces) > 20
    assert all(pieces)
    assert "".join(pieces) == stream.completion.text == written.text
    assert said(stream.completion) == said(written)
    if stops:
        cut = whole.text.index(options["stop"][0])
        assert (written.text, written.finish) == (whole.text[:cut], Finish(FinishReason.STOP, options["stop"][0]))


def test_what_was_held_back_comes_at_the_end(llm):
    """The text ends as a stop string begins: it is whole all the same."""
    whole = alone(llm, "Once", **SAMPLED, seed=[1])
    options = {**SAMPLED, "seed": [1], "stop": whole.text[-2:] + "never"}
    assert alone(llm, "Once", **options) == whole
    assert "".join(llm.stream("Once", **options)) == whole.text


def test_pieces_come_while_the_text_is_written(llm):
    """The engine stands still after ten of 40 tokens, and what they say can be read; no text has ended by then."""
    with held(llm) as steps:
        stream = llm.stream("Once", **SAMPLED, seed=1)
        steps.let(10)
        first = next(stream)
        with pytest.raises(ValueError, match="still being written"):
            _ = stream.completion
        assert stream.first_token_seconds > 0
        assert stream.seconds != stream.seconds
        steps.allow()
        assert stream.read().text.startswith(first)
    assert stream.seconds >= stream.first_token_seconds


def test_a_text_is_what_the_logits_say(llm):
    """The likeliest token after each, from a pass over the whole text, while another text is being written."""
    other = llm.stream("Twice", **SAMPLED)
    written = llm.generate([ids(90)], max_new_tokens=100, ignore_eos=True)[0]
    logits = llm.logits([*ids(90), *written.tokens[:-1]])
    assert logits[89:].argmax(axis=1).tolist() == list(written.tokens)
    assert len(set(written.tokens)) > 10
    assert other.read().finish == LENGTH
