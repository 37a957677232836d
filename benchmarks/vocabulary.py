"""What a vocabulary costs a start, in milliseconds: medians of new processes, a line of JSON for each size and kind.

    python benchmarks/vocabulary.py [--sizes 49152 151936 262144] [--kinds gguf json sentences] [--reps 7]

The vocabulary is the default model's, grown by merges of two of its tokens to the sizes that others have. `sentences`
is a GGUF file with the tokens of those that are ASCII, and scores, as Llama 2 has them (at 32000).

load    from a file that was opened before (its pages are in memory) to a tokenizer; of a GGUF file its header included
first   the first text, "The quick brown"; `second` another
long    10 kB of English, new words and all; `again` another text of the same words
whole   making the library's own form, where it has not been made
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()


def grown(size: int) -> tuple[list[str], list[str], list[int]]:
    """Tokens, merges and kinds: the default model's, and pairs of its shorter tokens, the frequent ones more often."""
    from quickbrown.weights.gguf import GgufSource
    from quickbrown.weights.hub import locate

    metadata = GgufSource(locate("smollm2-135m")).metadata
    tokens, merges, kinds = (list(metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "merges", "token_type"))
    left = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 1 and len(token) < 10]
    right = [token for token in left if token.isalpha() and token[0] != "Ġ"]
    known, draw = set(tokens), random.Random(1)
    while len(tokens) < size:
        one, two = (listed[int(len(listed) * draw.random() ** 2)] for listed in (left, right))
        if len(one + two) < 15 and one + two not in known:
            known.add(one + two)
            tokens.append(one + two)
            merges.append(f"{one} {two}")
            if len(one + two) < 10:
                left.append(one + two)
    return tokens, merges, [int(kind) for kind in kinds] + [1] * (len(tokens) - len(kinds))


def sentences(size: int) -> dict[str, Any]:
    """The settings of a vocabulary of the SentencePiece kind."""
    import numpy as np

    tokens, _, kinds = grown(size + size // 4)
    ascii_only = [t for t, kind in zip(tokens, kinds, strict=True) if kind == 1 and t.replace("Ġ", "").isascii()]
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    listed = [*special, *(t.replace("Ġ", "\u2581") for t in ascii_only)][:size]
    assert len(listed) == size
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": listed,
        "tokenizer.ggml.scores": [0.0] * len(special) + [-float(at) for at in range(size - len(special))],
        "tokenizer.ggml.token_type": [np.int32(kind) for kind in [2, 3, 3] + [6] * 256 + [1] * (size - len(special))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def write(folder: Path, size: int, kinds: list[str]) -> None:
    """A model of one tiny layer, as `gguf`, as a folder `json`, and as a file `sentences`."""
    sys.path.append(str(HERE.parents[1] / "tests"))
    from gguf_writer import Vocabulary, tiny_llama, write_gguf, write_tiny_llama
    from quickbrown.text.gguf_vocab import tokenizer_from_gguf
    from quickbrown.weights.gguf import GgufSource

    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    if "sentences" in kinds:
        said = sentences(size)
        plain = Vocabulary(said["tokenizer.ggml.tokens"], [], [1] * size)
        metadata, tensors = tiny_llama(vocabulary=plain, **shape)
        for key in ("merges", "add_bos_token"):
            del metadata[f"tokenizer.ggml.{key}"]
        write_gguf(folder / "sentences", metadata | said, tensors)
    if not {"gguf", "json"} & set(kinds):
        return
    write_tiny_llama(folder / "gguf", vocabulary=Vocabulary(*grown(size)), **shape)
    (folder / "json").mkdir()
    raw = tokenizer_from_gguf(GgufSource(folder / "gguf").metadata, folder).raw
    raw.save(str(folder / "json" / "tokenizer.json"))


def start(path: Path) -> dict[str, float]:
    """One start, in this process."""
    from quickbrown.text.files import tokenizer_from_folder
    from quickbrown.text.gguf_vocab import tokenizer_from_gguf
    from quickbrown.text.tokenizer import Tokenizer
    from quickbrown.weights.gguf import GgufSource

    english = (HERE.parents[1] / "docs" / "architecture.md").read_text("utf-8")[:10000]

    def load() -> Tokenizer:
        if path.is_dir():
            return tokenizer_from_folder(path, lazy=True)
        return tokenizer_from_gguf(GgufSource(path).metadata, path, lazy=True)

    import tokenizers  # noqa: F401  (loading the library is measured elsewhere)

    times = {}
    tokenizer, times["load"] = timed(load)
    texts = {"first": "The quick brown", "second": "Once upon a time", "long": english, "again": english + " The end."}
    for name, text in texts.items():
        _, times[name] = timed(lambda text=text: tokenizer.encode(text))
    _, times["whole"] = timed(lambda: tokenizer.raw)
    return times


def timed(call: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    return call(), (time.perf_counter() - begin) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[49152, 151936, 262144])
    parser.add_argument("--kinds", nargs="+", choices=["gguf", "json", "sentences"], default=["gguf", "json"])
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)  # a process of those that are measured
    args = parser.parse_args()
    if args.start:
        print(json.dumps(start(args.start)))
        return
    with tempfile.TemporaryDirectory() as made:
        paths = {(size, kind): Path(made, str(size), kind) for size in args.sizes for kind in args.kinds}
        for size in args.sizes:
            Path(made, str(size)).mkdir()
            write(Path(made, str(size)), size, args.kinds)
        found: dict[tuple[int, str], list[dict[str, float]]] = {key: [] for key in paths}
        for _ in range(args.reps):
            for key, path in paths.items():
                ran = subprocess.check_output([sys.executable, HERE, "--start", path], text=True)
                found[key].append(json.loads(ran))
    for (size, kind), runs in found.items():
        medians = {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}
        print(json.dumps({"tokens": size, "kind": kind, "reps": args.reps, **medians}))


if __name__ == "__main__":
    main()
