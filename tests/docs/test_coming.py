"""The pages about the names of transformers: they name all there is, say of each what the code does, and run."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import quickbrown
from quickbrown.hf import text_generation
from quickbrown.hf.auto_model import AutoModelForCausalLM
from quickbrown.hf.batch_encoding import BatchEncoding
from quickbrown.hf.generation_config import NEW_TOKENS, GenerationConfig, merge
from quickbrown.hf.generation_fields import ASSISTANT, DICT, FIELDS, LOOKUP, SAMPLING, SUPPORTED
from quickbrown.hf.model import PreTrainedModel
from quickbrown.hf.pipeline_options import Options
from quickbrown.hf.pipelines import pipeline
from quickbrown.hf.tokenizer import OPTIONS, AutoTokenizer, PreTrainedTokenizer
from quickbrown.types import SamplingParams
from quickbrown.weights import hub

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "coming-from-transformers.md").read_text("utf-8")
DEFAULTS = (DOCS / "defaults.md").read_text("utf-8")
HERE, AWAY = {"same", "better"}, {"later", "refused"}
CLASSES = ("logits_process", "stopping_criteria", "streamers")


def tables() -> list[dict[str, str]]:
    """Name -> status, of each table of the page."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
        found.append({name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])})
    return found


def table(heading: str, nth: int = 0) -> dict[str, str]:
    """The nth table below a line."""
    before = PAGE[: PAGE.index(heading)]
    skipped = len(re.findall(r"(?:^\|.*\n)+", before, re.MULTILINE))
    return tables()[skipped + nth]


def arguments(function: Callable[..., object]) -> set[str]:
    named = inspect.signature(function).parameters.values()
    return {p.name for p in named if p.kind is not p.VAR_KEYWORD and p.name != "self"}


def agree(listed: dict[str, str], known: set[str], accepted: frozenset[str] = frozenset()) -> None:
    """What is known is listed, as being here, and what is not known is listed as being away.

    accepted  what is known in order to be refused, or because it changes nothing
    """
    assert not known - listed.keys(), "the page does not name these"
    here = {name for name, status in listed.items() if status in HERE}
    assert not here - known, "the page says that these are here"
    assert not known - here - accepted, "the page says that these are not here"


def test_every_row_says_one_of_four_things() -> None:
    rows = [(name, status) for rows in tables() for name, status in rows.items()]
    assert len(rows) > 200
    assert all(status in HERE | AWAY for _, status in rows), [row for row in rows if row[1] not in HERE | AWAY]


def test_every_name_to_import_is_there() -> None:
    exported = {name for name, home in quickbrown._HOME.items() if home.startswith("hf.")}
    rows = {name: status for listed in tables() for name, status in listed.items()}
    assert not exported - rows.keys(), "the page does not name these"
    assert all(rows[name] in HERE for name in exported)
    first = {name for name, status in table("## Names to import").items() if status in HERE}
    assert all(hasattr(quickbrown, name) for name in first)


def test_fields_of_the_generation_config() -> None:
    """A field is here if it is in the table of supported ones and needs nothing that is not."""
    listed = table("## `GenerationConfig`")
    assert listed.keys() == FIELDS.keys()
    here = {name for name, field in SUPPORTED.items() if field.needs in ("", SAMPLING, DICT, LOOKUP, ASSISTANT)}
    assert {name for name, status in listed.items() if status in HERE} == here
    methods = table("## `GenerationConfig`", 1)
    assert all(hasattr(GenerationConfig, name) == (status in HERE) for name, status in methods.items())


@pytest.mark.parametrize("module", CLASSES)
def test_processors_criteria_and_streamers(module: str) -> None:
    home = importlib.import_module(f"quickbrown.hf.{module}")
    classes = {
        name
        for name, value in vars(home).items()
        if inspect.isclass(value) and value.__module__ == home.__name__ and not name.startswith("_")
    }
    listed = table("## " + {"logits_process": "Logits processors"}.get(module, module.replace("_", " ").capitalize()))
    assert classes <= listed.keys()
    assert {name for name, status in listed.items() if status in HERE} <= vars(home).keys()
    assert not {name for name, status in listed.items() if status in AWAY} & vars(home).keys()


def test_arguments_of_loading() -> None:
    ignored = frozenset({"trust_remote_code"})
    agree(table("## Loading"), arguments(AutoModelForCausalLM.from_pretrained), ignored)
    agree(table("## Tokenizers"), (arguments(AutoTokenizer.from_pretrained) | {*OPTIONS}) - {"options"}, ignored)


def test_arguments_of_generate() -> None:
    agree(table("## Writing"), arguments(PreTrainedModel.generate) | {"input_ids", "attention_mask"})


def test_arguments_of_a_pipeline() -> None:
    known = (arguments(pipeline) | arguments(Options)) - {"options"}
    agree(table("## `pipeline`"), known | {"streamer", "seed", "generation_config"})


def test_arguments_of_tokenizers() -> None:
    agree(table("Calling one"), arguments(PreTrainedTokenizer.__call__))
    known = arguments(PreTrainedTokenizer.apply_chat_template) - {"conversation"}
    agree(table("`tokenizer.apply_chat_template("), known, frozenset({"sanitize_control_tokens"}))


@pytest.mark.parametrize(
    ("heading", "nth", "home"),
    [
        ("## A model", 0, PreTrainedModel),
        ("Calling one", 1, PreTrainedTokenizer),
        ("`BatchEncoding`, what", 0, BatchEncoding({"input_ids": [[1]], "attention_mask": [[1]]})),
    ],
    ids=["model", "tokenizer", "batch"],
)
def test_methods(heading: str, nth: int, home: object) -> None:
    """What is said to be here can be asked for, and what is said to be away cannot, or is there to be refused."""
    made = inspect.getsource(PreTrainedModel.__init__)
    for name, status in table(heading, nth).items():
        there = hasattr(home, name) or f"self.{name}" in made or name in arguments(PreTrainedModel.__call__)
        if status in HERE:
            assert there, name
        elif hasattr(home, name):
            assert "raise " in inspect.getsource(getattr(home, name)), name


def test_the_table_of_defaults_is_current() -> None:
    rows = {
        row[1]: row[2:-1]
        for row in ([cell.strip() for cell in line.split("|")] for line in DEFAULTS.splitlines())
        if len(row) == 6
    }
    ours = SamplingParams()
    assert rows["most new tokens"] == [str(ours.max_new_tokens), str(NEW_TOKENS), str(text_generation.NEW_TOKENS)]
    assert ours.temperature == 0
    theirs, _ = merge({"do_sample": True}, None, GenerationConfig())
    assert rows["temperature of a draw"][1:] == [str(theirs.temperature), str(text_generation.TEMPERATURE)]
    assert rows["`top_k` of a draw"] == ["off", str(theirs.top_k), str(theirs.top_k)]
    assert ours.top_k == 0
    assert (theirs.top_p, theirs.min_p) == (1.0, None)
    assert not merge({}, None, GenerationConfig())[0].do_sample


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (page, code)
        for page in ("coming-from-transformers.md", "prompting-chat-models.md")
        for code in re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    ],
)
def test_python_runs(page: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = compile(code, page, "exec")
    if not hub.listing()[0].present:
        pytest.skip("the default model is not here; `qb pull smollm2-135m` fetches it")
    exec(compiled, {"__name__": "page"})
    assert len(capsys.readouterr().out) > 20
