"""The notebook in examples/ runs from top to bottom, and is as it should be before it has run."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from hf.tutorial_runner import execute
from quickbrown.hf.model import PromptHint
from quickbrown.weights import hub

PATH = Path(__file__).parents[2] / "examples" / "generation_with_llms.ipynb"
NOTEBOOK = json.loads(PATH.read_text("utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_is_a_notebook_that_has_not_run() -> None:
    """Stored outputs go stale, and make every run a change."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    for target in re.findall(r"\]\(([^)#\s]+)", PATH.read_text("utf-8")):
        assert (PATH.parent / target).exists(), target


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Each cell in order, in one namespace; what a cell ends with is what it shows."""
    if not hub.listing()[0].present:
        pytest.skip("the default model is not here; `qb pull smollm2-135m` fetches it")
    names: dict[str, Any] = {"__name__": "notebook"}
    shown: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for cell in CODE:
            shown[cell] = execute(cell, names)
    assert [warning.category for warning in warned] == [PromptHint], "one hint, which the text speaks of"
    values = [value for value in shown.values() if value is not None]
    assert values[1].startswith("A list of colors: red, blue")
    assert "green" in values[1]
    assert values.count(True) == 2, "a text is what it is alone, and the side of the padding does not matter"
    assert values[-1]["role"] == "assistant"
    printed = capsys.readouterr().out
    assert "<|im_start|>assistant" in printed
    assert "50 new tokens" in printed
    assert "| stop 8" in printed
    assert "Once upon a time, a fox" in printed
