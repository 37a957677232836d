"""`--help` and the page of defaults say all there is."""

from __future__ import annotations

import dataclasses

import pytest

from cli_page import COMMAND, DEFAULTS, defaults
from quickbrown.cli.command import LOADING, SAMPLING, flag
from quickbrown.cli.main import COMMANDS, overview
from quickbrown.types import SamplingParams


@pytest.mark.parametrize("name", COMMANDS)
def test_help_mentions_every_flag_and_what_it_does(name: str) -> None:
    parser = COMMANDS[name].parser()
    shown = parser.format_help()
    for action in parser._actions:
        assert action.help, f"{action.dest} has no help"
        assert all(option in shown for option in action.option_strings)
    assert COMMANDS[name].help in shown
    assert f"  {name} " in overview()


@pytest.mark.parametrize("name", ["generate", "chat"])
def test_texts_can_be_described_in_both(name: str) -> None:
    shown = COMMANDS[name].parser().format_help()
    assert all(flag(option) in shown for option in {**SAMPLING, **LOADING})


def test_every_sampling_flag_is_an_option_of_the_library() -> None:
    known = {field.name for field in dataclasses.fields(SamplingParams)}
    assert SAMPLING.keys() == known - {"logprobs"}  # logprobs are for programs


def test_the_page_of_defaults_is_current() -> None:
    assert DEFAULTS.read_text("utf-8") == defaults(), f"docs/defaults.md is not current; type: {COMMAND}"
