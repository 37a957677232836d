"""Makes tiktoken.json: run it where tiktoken 0.14 is, after make_words.py.

What tiktoken makes of the hard texts with the tokens of words.json as ranks, cut in the ways of models that come so; as
GPT-4o only with the first 400, among which there is no "<s>".
The patterns are those of tiktoken's o200k_base, of Kimi K2's tokenization_kimi.py, and of Llama 3's tokenizer.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
KIMI = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])  # fmt: skip


def main() -> None:
    import tiktoken
    import tiktoken_ext.openai_public as public

    from hard_texts import TEXTS

    public.load_tiktoken_bpe = lambda *_, **__: {}
    o200k = public.o200k_base()["pat_str"]
    tokens = json.loads((HERE / "words.json").read_text())["tokens"][3:]
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    byte_of = {chr(byte): byte for byte in plain}  # GPT-2's letters
    rest = [byte for byte in range(256) if byte not in plain]
    byte_of |= {chr(0x100 + i): byte for i, byte in enumerate(rest)}
    ranks = {bytes(byte_of[letter] for letter in token): rank for rank, token in enumerate(tokens)}
    made = {"tiktoken": tiktoken.__version__, "ids": {}}
    for name, pattern in {"llama3": LLAMA3, "kimi-k2": KIMI, "gpt-4o": o200k}.items():
        some = dict(list(ranks.items())[: 400 if name == "gpt-4o" else None])
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=some, special_tokens={})
        made["ids"][name] = [encoding.encode_ordinary(text) for text in TEXTS]
    (HERE / "tiktoken.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
