"""qb explain: how likely a model holds each token of a text, and what it would have written there."""

from __future__ import annotations

import argparse
import html
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickbrown.cli.command import Command, Parser, declare_model, load, note, text_of, whole, write
from quickbrown.cli.generate import finite
from quickbrown.cli.shown import coloured, columns, cut, harmless, padded, quoted, width

if TYPE_CHECKING:
    from quickbrown.types import Score, TokenScore

# The least probability of each shade, its words, its colour in a terminal of 256, and in a page or a picture.
SHADES = (
    (0.5, "above 50%", 34, "#1a9850"),
    (0.1, "10% to 50%", 148, "#91cf60"),
    (0.01, "1% to 10%", 214, "#fdae61"),
    (0.0, "below 1%", 196, "#d73027"),
)
UNJUDGED = "#888888"
MOST_PLOTTED = 400  # tokens

Spell = Callable[[int], bytes]  # a token's bytes


def declare(parser: Parser) -> None:
    parser.add_argument("prompt", nargs="?", help="the text to explain; - reads standard input")
    parser.add_argument("-f", "--file", metavar="FILE", help="read the text from a file")
    parser.add_argument("--top", metavar="N", type=whole, default=3, help="alternatives of each token (default: 3)")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page that needs nothing else")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw it into FILE.png or FILE.svg")
    parser.add_argument("--json", action="store_true", help="write a line of JSON for each token")
    declare_model(parser)


def run(args: argparse.Namespace) -> int:
    if args.plot is not None:
        if args.plot.suffix not in (".png", ".svg"):
            raise ValueError(f"the name of a plot must end in .png or .svg, and {args.plot.name!r} does not")
        from quickbrown.bench.plot import require

        require()
    text = text_of(args.prompt, args.file, "text")
    llm = load(args)
    score = llm.score(text, top=args.top)
    spell = llm.tokenizer.token_bytes
    if args.html is not None:
        args.html.write_text(page(score, spell, llm.path.name), "utf-8")
        note(f"wrote {args.html}")
    if args.plot is not None:
        plot(score, spell, args.plot)
        note(f"wrote {args.plot}")
    if args.json:
        for one in score.tokens:
            write(json.dumps(facts(one, spell), ensure_ascii=False) + "\n")
    elif args.html is None and args.plot is None:
        if coloured():
            write(painted(score, spell) + "\n\n")
        for line in table(score, spell):
            write(cut(line, columns()) + "\n")
    return 0


def facts(one: TokenScore, spell: Spell) -> dict[str, Any]:
    def text(token: int) -> str:
        return spell(token).decode("utf-8", "backslashreplace")

    return {
        "id": one.token,
        "text": text(one.token),
        "logprob": finite(one.logprob),
        "entropy": finite(one.entropy),
        "rank": one.rank if one.rank >= 0 else None,
        "alternatives": [{"id": token, "text": text(token), "logprob": finite(p)} for token, p in one.alternatives],
    }


def shade(one: TokenScore) -> tuple[float, str, int, str] | None:
    """The row of SHADES that a token belongs to; None if it was not judged."""
    return None if one.rank < 0 else next(row for row in SHADES if math.exp(one.logprob) >= row[0])


def runs(score: Score, spell: Spell) -> Iterator[tuple[str, TokenScore]]:
    """The text in pieces of whole characters, each with the token that completes it."""
    held = b""
    for at, one in enumerate(score.tokens, 1):
        held += spell(one.token)
        try:
            text = held.decode()
        except UnicodeDecodeError:
            if len(held) < 4 and at < len(score.tokens):
                continue
            text = held.decode("utf-8", "backslashreplace")
        held = b""
        yield text, one


def painted(score: Score, spell: Spell) -> str:
    """The text in colours, and what they say."""
    out = []
    for text, one in runs(score, spell):
        row = shade(one)
        style = "2" if row is None else f"38;5;{row[2]}"
        out.append(f"\x1b[{style}m{harmless(text)}\x1b[0m")
    legend = "  ".join(f"\x1b[38;5;{colour}m{words}\x1b[0m" for _, words, colour, _ in SHADES)
    return "".join(out) + f"\n\nprobability: {legend}"


def table(score: Score, spell: Spell) -> Iterator[str]:
    """A line for each token, and one about all."""
    tokens = [quoted(spell(one.token)) for one in score.tokens]
    wide = min(24, max(map(width, tokens), default=0))
    yield f"{padded('token', wide)} {'prob':>7} {'bits':>6} {'rank':>6} {'entropy':>7}  likeliest"
    for token, one in zip(tokens, score.tokens, strict=True):
        if one.rank < 0:
            yield token
            continue
        others = ", ".join(f"{quoted(spell(other))} {chance(logprob)}" for other, logprob in one.alternatives)
        yield (
            f"{padded(token, wide)} {chance(one.logprob):>7} {bits(-one.logprob):6.2f} {one.rank + 1:6} "
            f"{bits(one.entropy):7.2f}  {others}".rstrip()
        )
    yield summary(score)


def summary(score: Score) -> str:
    if not score.judged:
        return "1 token, which nothing stands before: there is nothing to judge"
    return (
        f"{len(score.tokens)} tokens, perplexity {score.perplexity:.2f}, "
        f"{bits(-score.logprob) / score.judged:.2f} bits a token"
    )


def bits(nats: float) -> float:
    return nats / math.log(2)


def chance(logprob: float) -> str:
    """A probability in few letters: 97.3%, 0.45%, <0.01%."""
    p = math.exp(logprob)
    return f"{p:.1%}" if p >= 0.01 else f"{p:.2%}" if p >= 0.0001 else "<0.01%"


def page(score: Score, spell: Spell, model: str) -> str:
    """A page with the text in colours; a token says more under the pointer, and in the table below."""
    spans, rows = [], []
    for text, one in runs(score, spell):
        row = shade(one)
        tip = "" if row is None else html.escape(tip_of(one, spell), quote=True)
        colour = UNJUDGED if row is None else row[3]
        spans.append(f'<span style="border-color:{colour}" title="{tip}">{html.escape(text)}</span>')
    for one in score.tokens:
        if one.rank >= 0:
            others = ", ".join(f"{quoted(spell(other))} {chance(p)}" for other, p in one.alternatives)
            cells = (
                quoted(spell(one.token)),
                chance(one.logprob),
                f"{bits(one.entropy):.2f}",
                str(one.rank + 1),
                others,
            )
        else:
            cells = (quoted(spell(one.token)), "", "", "", "")
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    legend = " ".join(f'<span style="border-color:{colour}">{words}</span>' for _, words, _, colour in SHADES)
    return PAGE.format(
        model=html.escape(model), summary=html.escape(summary(score)), legend=legend, text="".join(spans),
        rows="\n".join(rows),
    )  # fmt: skip


def tip_of(one: TokenScore, spell: Spell) -> str:
    others = "\n".join(f"{chance(logprob)} {quoted(spell(other))}" for other, logprob in one.alternatives)
    return f"{chance(one.logprob)}, rank {one.rank + 1}, entropy {bits(one.entropy):.2f} bits\n{others}"


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{model}</title><style>
html {{ color-scheme: light dark }}
body {{ font: 16px/1.9 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
p.text {{ white-space: pre-wrap }}
span {{ border-bottom: 4px solid; margin-right: 1px }}
table {{ border-collapse: collapse; font-size: 14px; line-height: 1.4 }}
td, th {{ text-align: left; padding: 2px 12px 2px 0; white-space: pre-wrap }}
</style></head><body>
<p class="text">{text}</p>
<p>{legend}</p>
<p>{summary}, by {model}</p>
<table><tr><th>token</th><th>probability</th><th>entropy, bits</th><th>rank</th><th>likeliest</th></tr>
{rows}
</table></body></html>
"""


def plot(score: Score, spell: Spell, path: Path) -> None:
    """Bars of how surprising each token is, in bits, and a line of the entropy there."""
    import warnings

    from matplotlib.figure import Figure

    judged = [one for one in score.tokens if one.rank >= 0]
    if not judged:
        raise ValueError("there is nothing to draw: the text has no token with another before it")
    if len(judged) > MOST_PLOTTED:
        raise ValueError(f"the text has {len(judged)} tokens, and a plot shows at most {MOST_PLOTTED}; use --html")
    figure = Figure(figsize=(max(5.0, 0.28 * len(judged) + 1.5), 4), layout="constrained")
    axes: Any = figure.subplots()
    places = range(len(judged))
    colours = [(shade(one) or SHADES[-1])[3] for one in judged]
    axes.bar(places, [bits(-one.logprob) for one in judged], color=colours)
    axes.plot(places, [bits(one.entropy) for one in judged], color="black", marker=".", linewidth=1, label="entropy")
    names = [quoted(spell(one.token)).replace("$", r"\$") for one in judged]
    axes.set_xticks(places, names, rotation=90, family="monospace", fontsize=8)
    axes.set_ylabel("surprise, bits")
    axes.set_title(summary(score), fontsize=10)
    axes.legend()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # letters that the font has not become boxes
        figure.savefig(path)


EXAMPLES = """
qb explain "The quick brown fox jumps over the lazy dog."
qb explain -f letter.txt --html letter.html      a page to look at
qb explain "It is raining cats and dogs" --plot rain.png
"""
EXPLAIN = Command(
    "explain", "Show how likely each token of a text is, and what else was.", declare, run, "[TEXT] [options]", EXAMPLES
)
