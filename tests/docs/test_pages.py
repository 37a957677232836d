"""What the pages of the command line show is what is said today."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cli_page
import errors_page
import pages
from quickbrown.cli import main
from quickbrown.hf.generation_fields import FIELDS

HERE = pytest.mark.skipif(
    not cli_page.MODEL.present, reason="the default model is not here; `qb pull smollm2-135m` fetches it"
)


def same(page: Path, today: str, command: str) -> None:
    shown = page.read_text("utf-8")
    changed = "\n".join(difflib.unified_diff(shown.splitlines(), today.splitlines(), "the page", "today", lineterm=""))
    assert not changed, f"docs/{page.name} is not current; type: {command}\n{changed}"


@HERE
def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    same(cli_page.PAGE, cli_page.page(), cli_page.COMMAND)


def test_errors() -> None:
    same(errors_page.PAGE, errors_page.page(), errors_page.COMMAND)


def test_every_error_is_a_sentence_that_helps() -> None:
    """One line, no traceback, and nothing unexpected."""
    text = errors_page.PAGE.read_text("utf-8")
    shown = [line for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    commands = [line for line in shown if line.startswith("$ ")]
    said = [line for line in shown if not line.startswith("$ ")]
    assert len(commands) > 60
    assert len(said) == len(commands)
    assert all(re.match(r"qb( \w+)?: \S", line) for line in said)
    assert not [line for line in said if "Traceback" in line or "unexpected" in line]


def test_every_cause_has_its_heading() -> None:
    headings = set(re.findall(r"^### (.*)$", errors_page.PAGE.read_text("utf-8"), re.MULTILINE))
    assert errors_page.CAUSES.keys() <= headings


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_its_help_and_a_session(name: str) -> None:
    text = cli_page.PAGE.read_text("utf-8")
    section = re.search(rf"^## qb {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section
    typed = re.findall(r"^\$ (.*)$", section[1], re.MULTILINE)
    helped = f"qb {name} --help"
    assert helped in typed or name == "list"
    assert set(typed) - {helped}


def test_a_page_keeps_what_only_figures_tell_apart() -> None:
    page = "# A\n```console\n$ x\n1.5 s\n$ y\nold\n```\n## B\n```console\n$ x\n```\n"
    run = {("A", "x"): "2.5 s", ("A", "y"): "new", ("B", "x"): ""}
    today = pages.refreshed(page, lambda *of: run[of], lambda command, out: re.sub(r"\d", "#", out))
    assert today == "# A\n```console\n$ x\n1.5 s\n$ y\nnew\n```\n## B\n```console\n$ x\n```\n"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_generation_config_is_a_flag_or_refused_by_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    word = "--" + name.replace("_", "-")
    parser = main.COMMANDS["generate"].parser()
    if word in parser._option_string_actions:
        return
    with pytest.raises(SystemExit):
        parser.parse(["x", word, "1"])
    said = capsys.readouterr().err
    assert f"{word} is not supported yet" in said or f"{word} means something to generate() of Python only" in said


@HERE
def test_what_a_start_loads() -> None:
    """`qb generate` is there in a fifth of a second, because it loads nothing that it does not need. A module that
    comes to this list comes to every start: is it worth it?"""
    code = (
        "import sys; from quickbrown.cli import main; before = set(sys.modules);"
        "main.call(['generate', 'The quick', '--max-new-tokens', '1']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    ours = {name.removeprefix("quickbrown.") for name in loaded if name.startswith("quickbrown.")}
    rooms = {name.partition(".")[0] for name in ours}
    assert rooms == {
        "_native", "backends", "cli", "engine", "generation", "llm", "models", "options", "quant", "streams", "text",
        "types", "weights",
    }  # fmt: skip
    assert {name for name in ours if name.startswith("cli.")} == {
        "cli.command", "cli.generate", "cli.main", "cli.progress",
    }  # fmt: skip
    assert {name for name in ours if name.startswith("models.")} <= {
        "models.blocks", "models.config", "models.families", "models.gguf", "models.llama", "models.ops",
        "models.rope", "models.routing",
    }  # fmt: skip
    others = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"quickbrown"}
    installed = {name for name in others if not name.startswith(("_", "sitecustomize"))}
    assert installed <= {"numpy", "platformdirs", "tokenizers"}, installed
