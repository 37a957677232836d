"""What the documents show is true: commands parse, Python runs, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from quickbrown.cli.main import choose
from quickbrown.weights import hub

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each `qb` command line shown, in a block or in the text."""
    shown = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    return [line.split("|")[-1].strip() for line in shown] + re.findall(r"`(qb [^`]*)`", README)


def test_there_is_something_to_check() -> None:
    assert len(commands()) >= 5
    assert len(blocks("python")) >= 1


@pytest.mark.parametrize("command", commands())
def test_a_command_parses(command: str) -> None:
    program, *argv = shlex.split(command)
    assert program == "qb"
    if argv != ["--help"]:
        chosen, rest = choose(argv)
        chosen.parser().parse(rest)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = compile(code, "README.md", "exec")
    if not hub.listing()[0].present:
        pytest.skip("the default model is not here; `qb pull smollm2-135m` fetches it")
    exec(compiled, {"__name__": "readme"})
    assert len(capsys.readouterr().out) > 50


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text("utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def test_the_set_up_is_two_commands() -> None:
    shown = re.findall(r"^    (make .*?)(?:  +#.*)?$", README, re.MULTILINE)
    assert shown == ["make demo", "make test"]
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(rules)
