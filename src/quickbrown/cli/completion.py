"""qb completion: what a shell needs to complete `qb`, made from the options themselves; it starts nothing later."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from quickbrown.cli.command import Command, Parser, write

TAKES_A_MODEL = ("pull", "rm", "info")


def declare(parser: Parser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell that reads it")


def run(args: argparse.Namespace) -> int:
    write({"bash": bash, "zsh": zsh, "fish": fish}[args.shell]())
    return 0


def flags() -> dict[str, list[tuple[list[str], str, list[str]]]]:
    """Of each command its options: names, help, and the values where they are known."""
    from quickbrown.cli.main import COMMANDS

    found = {}
    for name, command in COMMANDS.items():
        found[name] = [
            (
                list(action.option_strings),
                (action.help or "").partition(";")[0].replace("%%", "%"),
                models() if "--model" in action.option_strings else list(map(str, action.choices or ())),
            )
            for action in command.parser()._actions
            if action.option_strings
        ]
    return found


def models() -> list[str]:
    from quickbrown.weights import hub

    return list(hub.catalogue())


def bash() -> str:
    table = flags()
    values = "\n".join(
        f'    {name}:{"|".join([names[0], *(f"{name}:{other}" for other in names[1:])])}) words="{" ".join(known)}" ;;'
        for name, options in table.items()
        for names, _, known in options
        if known
    )
    rest = {name: " ".join(models()) for name in TAKES_A_MODEL} | {"completion": "bash zsh fish"}
    others = "\n".join(f'      {name}) words="{known}" ;;' for name, known in rest.items())
    options = "\n".join(
        f'      {name}) words="{" ".join(word for names, _, _ in options for word in names)}" ;;'
        for name, options in table.items()
    )
    return f"""# bash: put this into ~/.bashrc
#   source <(qb completion bash)
_qb() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{" ".join(table)}"
  else case "${{COMP_WORDS[1]}}:$before" in
{values}
    *) case "$word" in
    -*) case "${{COMP_WORDS[1]}}" in
{options}
      esac ;;
    *) case "${{COMP_WORDS[1]}}" in
{others}
      esac ;;
    esac ;;
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _qb qb
"""


def zsh() -> str:
    from quickbrown.cli.main import COMMANDS

    def spec(names: list[str], meaning: str, known: list[str]) -> Iterator[str]:
        for name in names:
            value = f":value:({' '.join(known)})" if known else ""
            yield f"'{name}[{_plain(meaning)}]{value}'"

    listed = " ".join(f"'{name}:{_plain(command.help)}'" for name, command in COMMANDS.items())
    cases = []
    for name, options in flags().items():
        specs = " ".join(one for option in options for one in spec(*option))
        rest = f"'*:model:({' '.join(models())})'" if name in TAKES_A_MODEL else "'*:file:_files'"
        cases.append(f"    {name}) _arguments {specs} {rest} ;;")
    body = "\n".join(cases)
    return f"""#compdef qb
# zsh: put this into a file _qb in a folder of $fpath
#   qb completion zsh > ~/.zfunc/_qb
_qb() {{
  if (( CURRENT == 2 )); then
    local -a commands; commands=({listed})
    _describe command commands
    return
  fi
  shift words; (( CURRENT-- ))
  case $words[1] in
{body}
  esac
}}
compdef _qb qb
"""


def fish() -> str:
    from quickbrown.cli.main import COMMANDS

    lines = ["# fish: qb completion fish > ~/.config/fish/completions/qb.fish"]
    for name, command in COMMANDS.items():
        lines.append(f"complete -c qb -n __fish_use_subcommand -f -a {name} -d {json.dumps(_plain(command.help))}")
    for name, options in flags().items():
        here = f"-n '__fish_seen_subcommand_from {name}'"
        if name in TAKES_A_MODEL:
            lines.append(f"complete -c qb {here} -f -a '{' '.join(models())}'")
        for names, meaning, known in options:
            spelled = " ".join(f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in names)
            value = f" -x -a '{' '.join(known)}'" if known else ""
            lines.append(f"complete -c qb {here} {spelled}{value} -d {json.dumps(_plain(meaning))}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A meaning without letters that shells read."""
    return "".join(letter for letter in text if letter not in "'\"`[]:$\\()")


EXAMPLES = """
source <(qb completion bash)                           in ~/.bashrc
qb completion zsh > ~/.zfunc/_qb                       with ~/.zfunc in $fpath
qb completion fish > ~/.config/fish/completions/qb.fish
"""
COMPLETION = Command(
    "completion", "Write what a shell needs to complete qb.", declare, run, "{bash,zsh,fish}", EXAMPLES
)
