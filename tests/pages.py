"""Pages whose console blocks are run: what stands behind each `$ ` line is what the command writes."""

from __future__ import annotations

import re
from collections.abc import Callable

_BLOCK = re.compile(r"^(#+ [^\n]*)$|^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ", re.MULTILINE)


def refreshed(
    text: str, run: Callable[[str, str], str], mask: Callable[[str, str], str] = lambda command, out: out
) -> str:
    """The page with what its commands write now.

    run   (heading, command) to what that writes, to both of its streams
    mask  (command, what it wrote) to what is compared: where that is the same, what the page shows stays
    """
    heading = ""

    def block(match: re.Match[str]) -> str:
        nonlocal heading
        if match[1]:
            heading = match[1].lstrip("# ")
            return match[0]
        shown = []
        for one in _COMMAND.split(match[2])[1:]:
            command, _, before = one.partition("\n")
            now = run(heading, command)
            now += "" if now.endswith("\n") or not now else "\n"
            kept = mask(command, now) == mask(command, before)
            shown.append(f"$ {command}\n{before if kept else now}")
        return "```console\n" + "".join(shown) + "```"

    return _BLOCK.sub(block, text)
