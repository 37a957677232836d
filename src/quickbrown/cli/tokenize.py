"""qb tokenize: a text as a model's vocabulary cuts it. Nothing of the weights is read."""

from __future__ import annotations

import argparse
import json

from quickbrown.cli.command import DEFAULT_MODEL, Command, Parser, ids, text_of, write
from quickbrown.cli.progress import Bars
from quickbrown.cli.shown import columns, cut, quoted


def declare(parser: Parser) -> None:
    parser.add_argument("text", nargs="?", help="the text; - reads standard input")
    parser.add_argument("-f", "--file", metavar="FILE", help="read the text from a file")
    parser.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        help=f"name, GGUF file or folder of the model (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--ids", action="store_true", help="write the token ids only, with commas between them")
    parser.add_argument("--count", action="store_true", help="write how many there are only")
    parser.add_argument("--json", action="store_true", help="write one line of JSON")
    parser.add_argument("--decode", metavar="IDS", type=ids, help="the other way: the text of token ids")
    parser.add_argument(
        "--plain", action="store_true", help="read the text of special tokens, like <|im_end|>, as plain text"
    )


def run(args: argparse.Namespace) -> int:
    if args.decode is not None and (args.text is not None or args.file is not None):
        raise ValueError("--decode takes ids and needs no text; leave one of them out")
    text = "" if args.decode is not None else text_of(args.text, args.file, "text")
    from quickbrown.hf.tokenizer import AutoTokenizer
    from quickbrown.weights import hub

    with Bars() as bars:
        core = AutoTokenizer.from_pretrained(hub.locate(args.model, files="tokenizer", progress=bars)).core
    if args.decode is not None:
        write(core.decode(args.decode, skip_special=False) + "\n")
        return 0
    tokens = core.encode(text, not args.plain)
    if args.count:
        write(f"{len(tokens)}\n")
    elif args.ids:
        write(",".join(map(str, tokens)) + "\n")
    elif args.json:
        spelled = [core.token_bytes(token).decode("utf-8", "backslashreplace") for token in tokens]
        write(json.dumps({"ids": tokens, "tokens": spelled}, ensure_ascii=False) + "\n")
    else:
        for token in tokens:
            write(cut(f"{token:7}  {quoted(core.token_bytes(token))}", columns()) + "\n")
    return 0


EXAMPLES = """
qb tokenize "The quick brown fox"     a token a line
qb tokenize -f letter.txt --count     how long is it for the model?
qb tokenize --decode 504,2365,6354
"""
TOKENIZE = Command(
    "tokenize", "Cut a text into a model's tokens, or join them.", declare, run, "[TEXT] [options]", EXAMPLES
)
