"""qb bench: how fast a model is on this machine."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quickbrown.cli.command import Command, Parser, declare_model, load, whole, write
from quickbrown.cli.info import lines
from quickbrown.types import size

COUNTS = {
    "prompt": (512, "tokens of the prompt whose reading is measured"),
    "new": (64, "tokens that each text is continued by"),
    "repeat": (5, "times that each is measured"),
}
LISTS = {
    "depth": ("16", "tokens of each text before it is continued"),
    "batch": ("1", "texts that are continued together"),
}


def declare(parser: Parser) -> None:
    for name, (value, meaning) in COUNTS.items():
        parser.add_argument(f"--{name}", metavar="N", type=whole, default=value, help=f"{meaning} (default: {value})")
    for name, (several, meaning) in LISTS.items():
        parser.add_argument(
            f"--{name}",
            metavar="N,...",
            type=numbers,
            default=several,
            help=f"{meaning}; of several numbers, like 1,4,16, each is measured (default: {several})",
        )
    parser.add_argument(
        "--profile", action="store_true", help="say where the time of the prompt and of a written token goes"
    )
    parser.add_argument("--plot", metavar="FILE", type=plotted, help="draw tokens/s into FILE.png or FILE.svg")
    parser.add_argument("--json", action="store_true", help="write one line of JSON")
    declare_model(parser)


def numbers(text: str) -> tuple[int, ...]:
    """16,1024: whole numbers with commas between them."""
    if not re.fullmatch(r"-?\d{1,9}(,-?\d{1,9})*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"give whole numbers with commas between them, like 1,4,16, not {text!r}")
    return tuple(map(int, text.split(",")))


def plotted(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"the file's name must end in .png or .svg, not {text!r}")
    return path


def run(args: argparse.Namespace) -> int:
    from quickbrown.bench.measure import Task, measure

    task = Task(**{name: getattr(args, name) for name in (*COUNTS, *LISTS)})
    if args.plot:
        from quickbrown.bench.plot import plot, require

        require()
    figures = measure(lambda: load(args), task, profiled=args.profile)
    if args.json:
        write(json.dumps(figures) + "\n")
    else:
        write("\n".join([*lines(table(figures)), *profiles(figures)]) + "\n")
    if args.plot:
        plot(figures, args.plot)
    return 0


def table(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of `measure` as `lines` shows them."""
    task = figures["task"]
    peak = figures["peak_bytes"]
    decode = {f"{one['batch']} x {task['new']} tokens after {one['depth']}": one for one in figures["decode"]}
    return {
        "model": figures["model"],
        "kernels": f"{figures['kernels']}, {figures['threads']} threads",
        "loading": f"{figures['load_seconds']:.3f} s",
        "warm-up": f"{figures['warm_up_seconds']:.3f} s, not counted below",
        "first token": f"{span(figures['first_token_seconds'], 3)} s after a prompt of {task['prompt']} tokens",
        "prompt": f"{span(figures['prompt_tokens_per_second'], 1)} tokens/s",
        "decode": {words: f"{span(one['tokens_per_second'], 1)} tokens/s" for words, one in decode.items()},
        "peak memory": "unknown here" if peak is None else size(peak),
        "repetitions": f"{task['repeat']}; a figure is their median (least-most)",
        "versions": figures["versions"],
    }


def profiles(figures: Mapping[str, Any]) -> Iterator[str]:
    """The profile of the prompt, and of each depth and batch, in microseconds."""
    if "prompt_profile" in figures:
        title = f"a prompt of {figures['task']['prompt']} tokens"
        yield from shown(figures["prompt_profile"], title, "a prompt", figures["threads"])
    for one in figures["decode"]:
        if "profile" in one:
            title = f"a step of {one['batch']} texts after {one['depth']} tokens"
            yield from shown(one["profile"], title, "a step", figures["threads"])


def shown(found: Mapping[str, Any], title: str, unit: str, threads: int) -> Iterator[str]:
    """A table of a profile, a row a stage, and the whole."""
    stages, total = found["stages"], found["seconds"]
    sums = {name: sum(stage[name] for stage in stages) for name in ("waiting", "bytes", "peak")}
    whole = {"name": unit, "count": "", "seconds": total, "imbalance": 0.0, **sums}
    wide = max(len(stage["name"]) for stage in stages)
    yield ""
    said = f"{title}, the mean of {found['steps']}"
    if found["threads"] < threads:
        said += f"; {found['threads']:.1f} threads took part: others had their cores"
    yield said
    yield f"{'':{wide}}   times        us   share    GB/s  of peak  waiting us  imbalance"
    for stage in (*stages, whole):
        seconds, read, uneven = stage["seconds"], stage["bytes"], stage["imbalance"]
        rate = f"{read / seconds / 1e9:.1f}" if read and seconds > 0 else ""
        of_peak = f"{stage['peak'] / seconds:.1%}" if stage["peak"] and seconds > 0 else ""
        waiting = f"{stage['waiting'] * 1e6:.1f}" if stage["waiting"] else ""
        yield (
            f"{stage['name']:{wide}}{stage['count']:>8}{seconds * 1e6:10.1f}{seconds / total:8.1%}{rate:>8}{of_peak:>9}"
            f"{waiting:>12}{f'{uneven:.1%}' if uneven else '':>11}"
        ).rstrip()


def span(spread: Mapping[str, float], digits: int) -> str:
    return f"{spread['median']:.{digits}f} ({spread['least']:.{digits}f}-{spread['most']:.{digits}f})"


BENCH = Command(
    "bench",
    "Measure how fast a model reads and writes here, and its memory.",
    declare,
    run,
    "[options]",
    """
qb bench
qb bench --batch 1,4,16 --plot batch.png
qb bench -m model.gguf --profile --json
""",
)
