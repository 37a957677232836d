"""The pictures of rivals.py, one a suite. Need matplotlib."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from report import Table, best_rival, ratios, rows, stem, values
from sides import DECODE, PEAK, SIDES, SUITES, Run


def draw(runs: Sequence[Run], path: Path) -> dict[str, Path]:
    """The picture of each suite: "texts" at the path, others beside it."""
    from matplotlib import rc_context

    painters: dict[str, Callable[[Table], Any]] = {"texts": best_ratios, "prompts": shares_of_peak}
    found = {}
    for name, suite in SUITES.items():
        if table := rows(runs, name):
            found[name] = path if name == "texts" else path.with_stem(f"{path.stem}-{name}")
            with rc_context({"svg.fonttype": "none", "font.size": 9}):  # letters stay letters: smaller files
                picture = painters[name](table) if name in painters else curves(table, suite.over)
                picture.savefig(found[name], metadata={"Date": None} if path.suffix == ".svg" else None)
    return found


def best_ratios(table: Table) -> Any:
    """How many times better: a group of bars a row, a colour a figure. Right is better."""
    from matplotlib.ticker import ScalarFormatter

    figures = [figure for figure in SUITES["texts"].figures if figure.compared]
    series = {
        figure.short: [ratios(found, figure, best_rival(found, figure)) for found in table.values()]
        for figure in figures
    }
    names = [f"{stem(model)}, {threads} threads, depth {depth}" for model, threads, depth in table]
    picture, axes = bars(names, series, left=1)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("how many times better than the best rival: faster, or less")
    return picture


def shares_of_peak(table: Table) -> Any:
    """A group of bars a row, a colour a side; quickbrown's share also of what the others of a row do."""
    series = {side: [values(found[side], PEAK) for found in table.values()] for side in SIDES}
    names = [f"{stem(model)}, {threads} threads, {prompt} tokens" for model, threads, prompt in table]
    picture, axes = bars(names, {side: found for side, found in series.items() if any(found)})
    axes.set_xlim(left=0)
    axes.set_xlabel("reading a prompt: share of the peak of multiply-adds")
    return picture


def bars(names: Sequence[str], series: dict[str, list[list[float]]], left: float = 0) -> tuple[Any, Any]:
    """Medians, with whiskers from the least to the most; of each series, the numbers of each name."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8, 1.5 + 0.75 * len(names)), layout="constrained")
    axes = picture.subplots()
    high = 0.8 / len(series)
    for k, (label, groups) in enumerate(series.items()):
        found = [(i, numbers) for i, numbers in enumerate(groups) if numbers]
        medians = [statistics.median(numbers) for _, numbers in found]
        below = [median - min(numbers) for median, (_, numbers) in zip(medians, found, strict=True)]
        above = [max(numbers) - median for median, (_, numbers) in zip(medians, found, strict=True)]
        places = [i + (k - (len(series) - 1) / 2) * high for i, _ in found]
        widths = [median - left for median in medians]
        axes.barh(places, widths, high, left=left, xerr=[below, above], capsize=2, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    picture.legend(loc="outside lower center", ncols=len(series))
    return picture, axes


def curves(table: Table, over: str) -> Any:
    """Decoded tokens a second over what the suite's tasks differ in: a picture a model, a line a side."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys((model, threads) for model, threads, _ in table))
    down = math.ceil(len(models) / 2)
    picture = Figure(figsize=(8, 0.8 + 2.4 * down), layout="constrained")
    grid = picture.subplots(down, 2, squeeze=False).ravel()
    for axes in grid[len(models) :]:
        axes.set_visible(False)
    for axes, (model, threads) in zip(grid, models, strict=False):
        mine = {value: found for (m, t, value), found in sorted(table.items()) if (m, t) == (model, threads)}
        for k, side in enumerate(SIDES):
            points = [(value, numbers) for value, found in mine.items() if (numbers := values(found[side], DECODE))]
            if points:
                medians = [statistics.median(numbers) for _, numbers in points]
                below = [median - min(numbers) for median, (_, numbers) in zip(medians, points, strict=True)]
                above = [max(numbers) - median for median, (_, numbers) in zip(medians, points, strict=True)]
                style = {"marker": ".", "capsize": 2, "color": f"C{k}", "label": side}
                axes.errorbar([value for value, _ in points], medians, yerr=[below, above], **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(mine), list(map(str, mine)))
        axes.set_ylim(bottom=0)
        axes.set_title(f"{stem(model)}, {threads} threads", fontsize=9)
        axes.set_xlabel({"depth": "tokens before", "batch": "texts written together"}[over])
        axes.set_ylabel("tokens/s")
    named = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    picture.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named))
    return picture
