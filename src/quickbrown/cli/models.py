"""qb pull, qb list, qb rm: the models in the cache folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from quickbrown.cli.command import Command, Parser, note, write
from quickbrown.cli.progress import Bars
from quickbrown.types import size


def declare_name(parser: Parser) -> None:
    parser.add_argument("name", help="a name that `qb list` shows")


def declare_rm(parser: Parser) -> None:
    parser.add_argument(
        "name", nargs="?", help="a name that `qb list` shows; with --packed, a path too, or nothing: all"
    )
    parser.add_argument("--packed", action="store_true", help="remove only what is kept of it for a faster start")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def pull(args: argparse.Namespace) -> int:
    from quickbrown.weights import hub

    with Bars() as bars:
        path = hub.pull(args.name, bars)
    note(f"{args.name} is in {path}")
    return 0


def list_models(args: argparse.Namespace) -> int:
    from quickbrown.weights import hub

    models = hub.listing()
    wide = max((len(model.name) for model in models), default=0)
    for model in models:
        state = str(model.path) if model.present else "not fetched"
        write(f"{model.name:{wide}}  {size(model.bytes):>7}  {model.license}  {model.description}\n")
        write(f"{'':{wide}}  {state}\n")
    return 0


def rm(args: argparse.Namespace) -> int:
    from quickbrown.weights import hub, kept

    if args.packed:
        return rm_packed(args.name)
    if args.name is None:
        raise ValueError("name the model to remove; `qb list` shows them")
    model = hub.catalogue().get(args.name)
    here = model is not None and model.present
    if here and not args.yes:
        if not sys.stdin.isatty():
            raise ValueError("nobody is there to be asked; qb rm --yes removes without asking")
        if input(f"Remove {args.name}? [y/N] ").strip().lower() not in ("y", "yes"):
            note("kept")
            return 1
    removed = hub.remove(args.name)
    packed = kept.remove(model.path) if model else 0
    note(f"{size((model.bytes if model and removed else 0) + packed)} freed")
    return 0


def rm_packed(name: str | None) -> int:
    """Nobody is asked: what is removed is made again by the next start."""
    from quickbrown.weights import hub, kept

    if name is None:
        note(f"{size(kept.remove())} freed")
        return 0
    model = hub.catalogue().get(name)
    path = model.path if model else Path(name).expanduser()
    if model is None and not path.exists() and not kept.of(path):  # a model that is gone may have left something
        path = hub.locate(name, local_files_only=True)
    note(f"{size(kept.remove(path))} freed")
    return 0


PULL = Command("pull", "Fetch a model; nothing is fetched twice.", declare_name, pull, "NAME", "qb pull smollm2-135m")
LIST = Command(
    "list",
    "Show the models there are, and which have been fetched.",
    lambda parser: None,
    list_models,
    "",
    "qb list",
)
RM = Command(
    "rm",
    "Remove a fetched model.",
    declare_rm,
    rm,
    "[NAME] [options]",
    """
qb rm smollm2-135m --yes       do not ask
qb rm --packed                 only what makes second starts faster, of all models
""",
)
