"""How byte-level vocabularies cut a text into words before they merge it, by the names that GGUF files have for it.

The patterns are those of the families' own tokenizer.json, where that was found, and else of llama.cpp, which made the
names. Both agree but where llama.cpp rewrites a pattern (its engine knows no `\\p{Lu}`, and composes no characters):
then the family's own is taken, since the model was trained with it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tokenizers

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_MARKS = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MINICPM = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}+|{_REST}"
_NO_ENDINGS = rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_SEED = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_PHRASES = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_JAIS2 = (
    _LLAMA3.removesuffix(r"\s+(?!\S)|\s+")
    + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
    + r"|\s{1,2}(?!\S)|\s{1}"
)


def _cased(upper: str, lower: str, endings: str, digits: str, tail: str) -> str:
    """Words that begin anew where small letters are followed by capital ones."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{before}{upper}*{lower}+{endings}|{before}{upper}+{lower}*{endings}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+{tail}*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_NO_HAN = r"&&[^\p{Han}]]"
_GPT4O = _cased(_UPPER, _LOWER, _ENDINGS + "?", r"\p{N}{1,3}", r"[\r\n/]")
_TEKKEN = _cased(_UPPER, _LOWER, "", r"\p{N}", r"[\r\n/]")
_KIMI = r"[\p{Han}]+|" + _cased(_UPPER[:-1] + _NO_HAN, _LOWER[:-1] + _NO_HAN, _ENDINGS + "?", r"\p{N}{1,3}", r"[\r\n]")
_YOUTU = _cased(_UPPER, _LOWER, _ENDINGS + "?", r"\p{N}", r"[\r\n/]")


def _class(ranges: str) -> str:
    """A class of characters by their numbers, as 41-5A."""
    return "[" + "".join("-".join(rf"\x{{{end}}}" for end in part.split("-")) for part in ranges.split()) + "]"


_HAN_KANA = _class("4E00-9FA5 3040-309F 30A0-30FF") + "+"
_CJK = _class("800-9FA5 AC00-D7FF") + "+"
_YOUTU_SCRIPTS = "|".join([
    _class("AC00-D7A3 3131-318E") + "+",
    _class("FF01 2026 201C 201D 2018 2019 2014 FF1A FF1B FF0C 3001-303F FE30-FE4F") + "+",
    _class("3105-312F") + "+",
    _HAN_KANA,
])  # fmt: skip
_AFTER_MARK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
_DEEPSEEK3 = _AFTER_MARK + r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPARK = _AFTER_MARK + r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
_DEEPSEEK_LETTERS = r"\s?" + _class(
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C 38E-3A1 "
    "3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A "
    "1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 "
    "1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 "
    "212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D "
    "A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 "
    "104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943"
) + "+"  # fmt: skip
_DEEPSEEK_MARKS = r"\s?" + _class("21-2F 3A-7E 2018-201F 3000-3002 FF01-FF0F FF1A-FF5E") + "+"
_BLOOM = r" ?[^(\s|[.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C}])]+"
_WORDS_OF_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"

# What is no pattern: pre-tokenizers that the library has itself.
BYTES = "bytes"  # letters for bytes; always among the steps
_GPT2 = "gpt2"  # words as GPT-2 cuts them, in letters for bytes
_DIGIT, _DIGITS = "digit", "digits"  # each alone; runs of them
_MARK, _SYMBOLS = "mark", "symbols"  # punctuation: each alone; runs of it
_LINES = "lines"  # line ends go with what follows


Added = dict[bool, list[str]]  # tokens that are whole in any text, by whether they mark structure


class Words(NamedTuple):
    """A way to cut texts into words.

    steps          patterns of what becomes a piece of its own, and names of steps that are none; each cuts the pieces
                   of the one before
    composed       characters are composed first (Unicode's NFC)
    ignore_merges  a word that is a token is that token, whatever the merges say
    begins         texts begin with the beginning token where the file does not say whether they do
    """

    steps: tuple[str, ...]
    composed: bool = False
    ignore_merges: bool = False
    begins: bool = False

    def dressed(self, added: Added, model: tokenizers.models.Model) -> tokenizers.Tokenizer:
        """A byte-level model that cuts texts so, with tokens that are whole in any text.

        Raises plain Exception, as the library does, for a pattern that it cannot read.
        """
        import tokenizers
        from tokenizers import Regex, decoders, normalizers
        from tokenizers import pre_tokenizers as pre

        named: dict[str, Callable[[], Any]] = {
            BYTES: lambda: pre.ByteLevel(add_prefix_space=False, use_regex=False),
            _GPT2: lambda: pre.ByteLevel(add_prefix_space=False, use_regex=True),
            _DIGIT: lambda: pre.Digits(individual_digits=True),
            _DIGITS: lambda: pre.Digits(individual_digits=False),
            _MARK: lambda: pre.Punctuation("isolated"),
            _SYMBOLS: lambda: pre.Punctuation("contiguous"),
            _LINES: lambda: pre.Split(Regex(r"(?:\r?\n)+(?!\r?\n)"), "merged_with_next"),
        }
        raw = tokenizers.Tokenizer(model)
        raw.pre_tokenizer = pre.Sequence(
            [named[step]() if step in named else pre.Split(Regex(step), "isolated") for step in self.steps]
        )
        if self.composed:
            raw.normalizer = normalizers.NFC()
        raw.decoder = decoders.ByteLevel()
        add_tokens(raw, added)
        return raw


def add_tokens(raw: tokenizers.Tokenizer, added: Added, strip: Container[str] = ()) -> None:
    """Make tokens whole in any text, of which those of `strip` take blanks and line ends behind them along."""
    from tokenizers import AddedToken

    for special, texts in added.items():
        tokens = [AddedToken(text, special=special, normalized=False, rstrip=text in strip) for text in texts]
        (raw.add_special_tokens if special else raw.add_tokens)(tokens)


def _one(pattern: str) -> Words:
    return Words((pattern, BYTES))


_OF_GPT2 = Words((_GPT2,))
_OF_STARCODER = Words((_DIGIT, _GPT2))
_OF_LLAMA3 = Words((_LLAMA3, BYTES), ignore_merges=True, begins=True)
_OF_DEEPSEEK3 = Words((r"\p{N}{1,3}", _HAN_KANA, _DEEPSEEK3, BYTES))

WORDS: dict[str, Words] = {
    "default": Words((r"[\p{P}\$\+<=>\^~\|]+", _WORDS_OF_GPT2, r"\p{N}+", "[0-9][0-9][0-9]", BYTES)),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "jais", "trillion", "granite-docling"), _OF_GPT2
    ),
    **dict.fromkeys(("mpt", "olmo"), _OF_GPT2._replace(composed=True)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"), _OF_STARCODER),
    "command-r": _OF_STARCODER._replace(composed=True),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _OF_LLAMA3
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), _one(_LLAMA3)),
    "qwen2": _one(_QWEN2)._replace(composed=True),
    **dict.fromkeys(
        ("deepseek-r1-qwen", "megrez", "kormo", "stablelm2", "hunyuan", "solar-open", "grok-2"), _one(_QWEN2)
    ),
    "qwen35": _one(_MARKS)._replace(composed=True),
    "ufakzeka": _one(_NO_ENDINGS),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _OF_DEEPSEEK3),
    "deepseek-llm": Words(("[\r\n]", _DEEPSEEK_LETTERS, _DEEPSEEK_MARKS, r"\s+$", _CJK, _DIGIT, BYTES)),
    "deepseek-coder": Words(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, _DIGIT, BYTES)),
    "spark2_5": Words((r"\p{N}{1,3}", _HAN_KANA, _SPARK, _DIGIT, BYTES)),
    "youtu": Words((_YOUTU_SCRIPTS, _YOUTU, BYTES), ignore_merges=True),
    "falcon": Words((_SYMBOLS, _GPT2, _DIGITS, "[0-9][0-9][0-9]")),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), _one(_BLOOM)),
    "viking": Words((_BLOOM, _DIGIT, BYTES)),
    "tekken": Words((_TEKKEN, BYTES), ignore_merges=True, begins=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _one(_GPT4O)),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), Words((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O, BYTES))),
    "kimi-k2": _one(_KIMI),
    "superbpe": Words((r"\p{N}+", r"(?=(\d{3})+(?!\d))", BYTES)),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _one(_BAILING)),
    "seed-coder": _one(_SEED),
    "minicpm5": Words((r"\p{N}{1,3}", _MINICPM, BYTES), ignore_merges=True),
    "laguna": Words((_LINES, _QWEN2, BYTES)),
    "exaone-moe": _one(_PHRASES),
    "jais-2": _one(_JAIS2),
    "chameleon": Words(
        ("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", _DIGIT, _MARK, _GPT2),
        begins=True,
    ),
}

# Ways that are known by name and not read, and why.
REFUSED = {
    "afmoe": "its digits are grouped from their end by a pattern that is not known here",
    "whitespace": "it is of a model that writes no text",
    **dict.fromkeys(
        ("jina-v1-en", "jina-v2-de", "jina-v2-es", "jina-v2-code", "jina-v5-nano", "jina-de", "jina-es", "roberta-bpe",
         "modern-bert", "granite-embed-multi-97m", "granite-embed-multi-311m", "f2llmv2"),
        "it is of a model that writes no text",
    ),
}  # fmt: skip
