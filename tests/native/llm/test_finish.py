"""How texts end: at a token, a stop string, a length, a time, or because a stream is closed."""

from __future__ import annotations

from quickbrown import Finish, FinishReason
from tiny_llm import CANCELLED, LENGTH, SAMPLED, SPREAD, alone, begins, counted, held, ids, rests, running, said, slowly

ENDS = {0, 2}  # <|endoftext|>, <|im_end|>


def test_stop_at_the_models_own_tokens(llm):
    """Some of 32 samples draw one of its two: each ends there, and would have gone on otherwise."""
    options = {"temperature": SPREAD, "max_new_tokens": 150}
    samples = llm.generate("Once", n=32, **options, seed=1)
    stopped = [c for c in samples if c.finish.reason is FinishReason.STOP]
    assert 0 < len(stopped) < 32
    for c in stopped:
        assert c.finish == Finish(FinishReason.STOP, c.tokens[-1])
        assert [token in ENDS for token in c.tokens] == [*[False] * (len(c.tokens) - 1), True]
        assert c.text == llm.tokenizer.decode(c.tokens[:-1])
    assert {c.tokens[-1] for c in stopped} == ENDS
    for c in {*samples}.difference(stopped):
        assert (c.finish, len(c.tokens)) == (LENGTH, 150)
        assert ENDS.isdisjoint(c.tokens)
    further = alone(llm, "Once", **options, seed=[stopped[0].seed], ignore_eos=True)
    assert further.finish == LENGTH
    assert begins(stopped[0], further)


def test_a_stop_string_ends_the_sample_that_wrote_it_and_no_other(llm):
    """It stands in the middle of one of three texts, and in no other. Nothing is run after it."""
    one, two, three = llm.generate("Once", n=3, **SAMPLED, seed=1)
    others = one.text + three.text
    stop = next(two.text[i : i + 3] for i in range(15, 30) if two.text[i : i + 3] not in others)
    stopped = llm.generate("Once", n=3, **SAMPLED, seed=1, stop=stop)
    assert [said(stopped[0]), said(stopped[2])] == [said(one), said(three)]
    assert stopped[1].finish == Finish(FinishReason.STOP, stop)
    assert stopped[1].text == two.text[: two.text.index(stop)] != ""
    assert begins(stopped[1], two)
    with counted(llm) as sizes:
        again = alone(llm, "Once", **SAMPLED, seed=[two.seed], stop=stop)
    assert again == said(stopped[1])
    assert len(sizes) == len(again.tokens)


def test_length(llm):
    """What was asked for, or the whole context where nothing was."""
    assert llm.generate("Once", **SAMPLED).finish == LENGTH
    rest = llm.generate([ids(2000), ids(1990)], ignore_eos=True)
    assert [(len(c.tokens), c.finish) for c in rest] == [(48, LENGTH), (58, LENGTH)]


def test_time_ends_a_text_and_no_other(llm):
    """In the middle, at a point that the clock chooses; at once, if there is none; another text goes on."""
    timed = {**SAMPLED, "max_new_tokens": 400, "seed": [1]}
    whole = alone(llm, "Once", **timed)
    expected = alone(llm, ids(50), **SAMPLED, seed=[2])
    with running(llm, slowly(0.01)):
        other = llm.stream_batch([ids(50)], **SAMPLED, seed=[2])
        timed["max_time"] = 0.2
        stopped = llm.generate("Once", **timed)
        assert stopped.finish == Finish(FinishReason.TIME)
        assert begins(stopped, whole)
        assert stopped.tokens
        never = llm.generate([ids(1000, 1001)], **{**timed, "max_time": 1e-9})[0]
        assert (never.finish.reason, never.tokens, never.text) == (FinishReason.TIME, (), "")
        assert said(other.read()[0]) == expected


def test_closing_a_stream_keeps_what_was_written(llm):
    """The engine stands before its eleventh step: ten tokens are there. Nothing else is ever read or run, and
    closing again changes nothing."""
    whole = alone(llm, "Once", **SAMPLED, seed=[1])
    with held(llm) as steps:
        stream = llm.stream("Once", **SAMPLED, seed=[1])
        steps.let(10)
        stream.close()
        closed = stream.completion
        steps.allow()
        assert rests(llm)
        assert steps.begun == 11
    stream.close()
    assert stream.completion == closed
    assert (closed.finish, len(closed.tokens)) == (CANCELLED, 10)
    assert begins(closed, whole)
    assert "".join(stream) == closed.text


def test_closing_a_batch_ends_all_its_rows(llm):
    whole = [said(c) for c in llm.generate(["Once", "Twice"], **SAMPLED, seed=[1, 2])]
    with held(llm) as steps:
        stream = llm.stream_batch(["Once", "Twice"], **SAMPLED, seed=[1, 2])
        steps.let(10)
        stream.close()
    assert [c.finish for c in stream.completions] == [CANCELLED, CANCELLED]
    assert all(map(begins, stream.completions, whole))
