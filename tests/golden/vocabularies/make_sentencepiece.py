"""Makes sentencepiece.json and the .model files: run it where sentencepiece 0.2 is.

Small vocabularies of each kind, trained on the hard texts and plain.txt, and what sentencepiece makes of every
hard text with them.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

# What some characters are replaced by, in the numbers of both: a small table of the kind of 'nmt_nfkc'.
RULES = """\
9\t20
A\t20
A0\t20
3000\t20
FB01\t66 69
BD\t31 2044 32
FF11\t31
FF12\t32
65 301\tE9
6F 308\tF6
41 30A\tC5
2026\t2E 2E 2E
"""

# As Llama 2, as Gemma, as rinna's GPT-NeoX, as T5; names are of files.
COMMON = {"character_coverage": 0.98, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1}
LIKE_LLAMA = {
    "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "split_digits": True,
    "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "vocab_size": 900,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": LIKE_LLAMA,
    "gemma": LIKE_LLAMA | {
        "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
        "user_defined_symbols": [
            "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "<tool>",
        ],
    },
    "no_bytes": {"model_type": "bpe", "vocab_size": 600},
    "crossing": LIKE_LLAMA | {"split_by_whitespace": False, "vocab_size": 900},
    "unigram": {"model_type": "unigram", "vocab_size": 600},
    "unigram_bytes": {
        "model_type": "unigram", "byte_fallback": True, "vocab_size": 800, "user_defined_symbols": ["<tool>"],
        "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
    },
}  # fmt: skip


def main() -> None:
    import sentencepiece

    from hard_texts import TEXTS

    plain = [text for text in TEXTS if "\0" not in text]
    plain += (HERE / "plain.txt").read_text("utf-8").splitlines()
    made: dict[str, Any] = {"sentencepiece": sentencepiece.__version__, "kinds": {}}
    rules = Path(tempfile.mkdtemp(), "rules.tsv")
    rules.write_text(RULES)
    for name, options in KINDS.items():
        normalized = {} if "normalization_rule_name" in options else {"normalization_rule_tsv": str(rules)}
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(plain), model_writer=written, **COMMON | normalized | options
        )
        (HERE / f"{name}.model").write_bytes(written.getvalue())
        model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
        ids = [model.encode(text) for text in TEXTS]
        made["kinds"][name] = {"ids": ids, "texts": [model.decode(i) for i in ids]}
    (HERE / "sentencepiece.json").write_text(json.dumps(made, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
