"""A picture of what `measure` found. Needs matplotlib: pip install 'quickbrown[plot]'."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def require() -> None:
    """Raises RuntimeError, with what to type, if there is no matplotlib."""
    if find_spec("matplotlib") is None:
        raise RuntimeError("plots need matplotlib: pip install 'quickbrown[plot]'")


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Tokens a second into a .png or .svg: while writing over the depth, a line a batch; or over the batch, if there
    is one depth; or, of a single figure, beside that of the prompt. Whiskers go from the least to the most."""
    require()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes: Any = figure.subplots()
    task, decode = figures["task"], figures["decode"]
    if len(decode) == 1:
        bars = {"prompt": figures["prompt_tokens_per_second"], "decode": decode[0]["tokens_per_second"]}
        axes.bar(list(bars), **heights(list(bars.values()), "height"), capsize=4)
        axes.set_ylabel("tokens/s")
    else:
        over, along = ("depth", "batch") if len(task["depth"]) > 1 else ("batch", "depth")
        for value in task[along]:
            mine = sorted((one for one in decode if one[along] == value), key=lambda one: one[over])
            spreads = [one["tokens_per_second"] for one in mine]
            style = {"marker": "o", "capsize": 3, "label": f"{along} {value}"}
            axes.errorbar([one[over] for one in mine], **heights(spreads, "y"), **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(task[over]), list(map(str, sorted(task[over]))))
        axes.set_xlabel({"depth": "tokens of each text before", "batch": "texts written together"}[over])
        axes.set_ylabel("decode, tokens/s, all texts")
        axes.legend()
    axes.set_ylim(bottom=0)
    axes.set_title(f"{figures['model']}, {figures['threads']} threads, {figures['kernels']}", fontsize=10)
    figure.savefig(path)


def heights(spreads: list[dict[str, float]], name: str) -> dict[str, Any]:
    """Medians as `name`, and how far the whiskers reach below and above."""
    below = [spread["median"] - spread["least"] for spread in spreads]
    above = [spread["most"] - spread["median"] for spread in spreads]
    return {name: [spread["median"] for spread in spreads], "yerr": [below, above]}
