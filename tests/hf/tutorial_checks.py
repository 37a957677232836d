"""What the tutorial shows, checked of a run of it: tests for files that have a fixture `tutorial` of `carried_out`.

The page's own texts are a large model's; what is compared is what it shows about them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints
import hub_server
from hf import tutorial_runner
from hf.tutorial_runner import Statement
from quickbrown.hf.arrays import to_numpy
from quickbrown.hf.model import PromptHint
from quickbrown.weights import hub

BASE, CHAT = "mistralai/Mistral-7B-v0.1", "HuggingFaceH4/zephyr-7b-alpha"
TEMPLATE = (  # as Zephyr's: a line with the role, the message, the end token
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MODELS = ("a stand-in for the Hub", "smollm2-135m")

# The calls of generate(), in order.
COLORS, TWO, NUMBERS, FIFTY, CAT, DRAWN, RIGHT, LEFT, UNTEMPLATED, CHATTED = range(10)


class Tutorial:
    """A run of the tutorial: its statements, and those that call generate()."""

    def __init__(self, statements: list[Statement], tensors: str, model: str) -> None:
        self.statements, self.tensors, self.model = statements, tensors, model
        self.calls = [s.names for s in statements if s.source.startswith("generated_ids = ")]

    def prompt(self, call: int) -> Any:
        given = self.calls[call]["model_inputs"]
        return to_numpy(given.input_ids if hasattr(given, "input_ids") else given)

    def ids(self, call: int) -> Any:
        return to_numpy(self.calls[call]["generated_ids"])

    def new(self, call: int) -> Any:
        return self.ids(call)[:, self.prompt(call).shape[1] :]

    def texts(self, call: int) -> list[str]:
        names = self.calls[call]
        texts: list[str] = names["tokenizer"].batch_decode(names["generated_ids"], skip_special_tokens=True)
        return texts

    def again(self, call: int, text: str, **options: Any) -> list[str]:
        """One text, written alone by the model of a call."""
        names = self.calls[call]
        inputs = names["tokenizer"]([text], return_tensors=self.tensors)
        written: list[str] = names["tokenizer"].batch_decode(
            names["model"].generate(**inputs, **options), skip_special_tokens=True
        )
        return written


@contextlib.contextmanager
def carried_out(model: str, tensors: str, folder: Path) -> Iterator[Tutorial]:
    """The tutorial with its own names, of tiny models from a stand-in for the Hub, or with the default model's."""
    if model != MODELS[0]:
        if not hub.listing()[0].present:
            pytest.skip("the default model is not here; `qb pull smollm2-135m` fetches it")
        yield Tutorial(tutorial_runner.run(tensors, {BASE: model, CHAT: model}), tensors, model)
        return
    served = {
        BASE: checkpoints.write_checkpoint(folder / "base", model_type="mistral", seed=1),
        CHAT: checkpoints.write_checkpoint(folder / "chat", model_type="mistral", seed=2, chat_template=TEMPLATE),
    }
    with hub_server.serve(served) as there, pytest.MonkeyPatch.context() as patch:
        hub_server.use(there, folder / "cache", patch)
        yield Tutorial(tutorial_runner.run(tensors), tensors, model)


def test_only_imports_are_rewritten() -> None:
    """Otherwise it is not the tutorial that runs."""
    changed = [
        source for source, _ in tutorial_runner.statements() if tutorial_runner.rewritten(source, "pt", {}) != source
    ]
    assert len(changed) == 5
    assert all(source.startswith(("from transformers import ", "from accelerate.")) for source in changed)
    assert len(tutorial_runner.statements()) == 51


def test_every_statement_runs_and_shows_what_the_page_shows(tutorial: Tutorial) -> None:
    """A text where the page shows one, a list of two where it shows two, a printed line where it prints one."""
    for statement in tutorial.statements:
        if statement.source.startswith("print("):
            assert statement.printed.endswith("\n")
        elif statement.shown:
            assert type(statement.value) is type(eval(statement.shown))
            assert np.size(statement.value) == np.size(eval(statement.shown))
        else:
            assert statement.value is None
    assert len(tutorial.calls) == 10


def test_arrays_are_of_the_callers_kind(tutorial: Tutorial) -> None:
    for names in tutorial.calls:
        kind = type(names["generated_ids"])
        assert kind.__module__.partition(".")[0] == {"np": "numpy", "pt": "torch"}[tutorial.tensors]
        assert str(names["generated_ids"].dtype).removeprefix("torch.") == "int64"


def test_the_output_begins_with_the_prompt(tutorial: Tutorial) -> None:
    for call in range(len(tutorial.calls)):
        prompt = tutorial.prompt(call)
        assert (tutorial.ids(call)[:, : prompt.shape[1]] == prompt).all()
    assert tutorial.texts(COLORS)[0].startswith("A list of colors: red, blue")
    assert tutorial.texts(TWO)[1].startswith("Portugal is")


def test_how_many_tokens_are_written(tutorial: Tutorial) -> None:
    """20 unless asked otherwise, fewer only if the text ends before."""
    asked = {FIFTY: 50}
    for call, names in enumerate(tutorial.calls):
        new, eos = tutorial.new(call), names["tokenizer"].eos_token_id
        assert new.shape[1] == asked.get(call, 20) or (new == eos).any(1).all()
        assert new.shape[1] <= asked.get(call, 20)
    assert (tutorial.new(FIFTY)[:, :20] == tutorial.new(NUMBERS)).all(), "a longer text begins like a shorter one"
    assert tutorial.new(FIFTY).shape[1] > tutorial.new(NUMBERS).shape[1]


def test_rows_are_what_they_are_alone(tutorial: Tutorial) -> None:
    together = tutorial.texts(TWO)
    assert together[0] == tutorial.texts(COLORS)[0]
    assert together[1:] == tutorial.again(TWO, "Portugal is")


def test_the_wrong_padding_side_is_no_pitfall(tutorial: Tutorial) -> None:
    """The page shows a broken text of right padding, '1, 2, 333333333333'."""
    assert _mask(tutorial, RIGHT)[0, -1] == 0
    assert _mask(tutorial, LEFT)[0, 0] == 0
    assert (tutorial.new(RIGHT) == tutorial.new(LEFT)).all()
    assert tutorial.texts(LEFT)[:1] == tutorial.again(LEFT, "1, 2, 3")


def _mask(tutorial: Tutorial, call: int) -> Any:
    return to_numpy(tutorial.calls[call]["model_inputs"].attention_mask)


def test_a_seed_brings_a_drawn_text_back(tutorial: Tutorial) -> None:
    names = tutorial.calls[DRAWN]
    assert (tutorial.new(DRAWN) != tutorial.new(CAT)).any(), "drawn, not the likeliest"
    for seed in (42, 42, 43):
        names["set_seed"](seed)
        text = tutorial.again(DRAWN, "I am a cat.", do_sample=True)
        assert (text == tutorial.texts(DRAWN)) == (seed == 42)


def test_a_prompt_without_the_chat_template_gets_a_hint(tutorial: Tutorial) -> None:
    """The pitfall that the page calls wrong prompt. Nothing else warns."""
    warned = {s.source: s.warned for s in tutorial.statements if s.warned}
    assert {kind for kinds in warned.values() for kind in kinds} == {PromptHint}
    assert "generated_ids = model.generate(**model_inputs, max_new_tokens=20)\n" in warned
    if tutorial.model == MODELS[0]:
        assert len(warned) == 1, "the base model has no chat template"


def test_a_conversation_follows_the_template(tutorial: Tutorial) -> None:
    names = tutorial.calls[CHATTED]
    prompt = names["tokenizer"].decode(tutorial.prompt(CHATTED)[0])
    places = [prompt.index(part) for part in ("system", "always responds in the style", "user", "How many helicopters")]
    assert places == sorted(places)
    assert prompt.rstrip().endswith(("<|assistant|>", "<|im_start|>assistant"))
    printed = [s.printed for s in tutorial.statements if s.printed]
    for call, shown in zip((UNTEMPLATED, CHATTED), printed, strict=True):
        tokenizer = tutorial.calls[call]["tokenizer"]
        assert shown == tokenizer.decode(tutorial.new(call)[0], skip_special_tokens=True) + "\n"


def test_the_default_model_writes_sense(tutorial: Tutorial) -> None:
    if tutorial.model == MODELS[0]:
        return  # random weights
    assert "green" in tutorial.texts(COLORS)[0]
    assert tutorial.texts(FIFTY)[0].startswith("A sequence of numbers: 1, 2, 3, 4, 5")
    assert tutorial.texts(LEFT)[0].startswith("1, 2, 3, 4, 5")
    assert "Portugal is a" in tutorial.texts(TWO)[1]
