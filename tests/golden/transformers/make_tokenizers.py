"""Makes tokenizers.json: run `PYTHONPATH=src:tests python tests/golden/transformers/make_tokenizers.py` where
transformers 5.23 and the default model are.

Small vocabularies of four kinds, whose files are kept in the golden; the default model's, built here from the tokens
and merges in its file; and what transformers' tokenizers make of odd texts and arguments with each.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("tokenizers.json")

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LINES = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "A list of colors: red, blue, green, yellow, orange.",
    "Hello, my name is Ada and I like to read books about the sea and the stars.",
    "Numbers: 0 1 2 3 4 5 6 7 8 9 10 100 2024; (brackets) [and] {braces}; it's, don't!",
    "The capital of France is Paris. It lies on the river Seine.",
]
TEXTS = [
    "", " ", "  ", "\n", "a", " a", "a ", "Hello world", "  two  blanks ", "The quick brown fox",
    "the\tdog\r\nsleeps\n\n",
    "it's 12345, isn't it? 3.14", "\u00e9", "e\u0301", "na\u00efve caf\u00e9", "\u65e5\u672c\u8a9e", "\U0001f642",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467", "a\U0001f642b", "\u00a0x\u200by", "\ufffd", "<s>Hello</s>",
    "<|im_start|>user\nHi<|im_end|>", "</s></s>", "<unk>", "x<tool>y", " <tool> ", "\u2581\u2581x", "a\u2581b",
    "<0x41>", "\u0120the", "\ufb01 \u00bd \u2167", "\u00c0\u00c9\u00ce", "\u0391\u03a9 \u0436\u042f", "x" * 40,
    "a  b   c    d", "don't we'll I'm", "[INST] hi [/INST]", "\\n\\t", "0", "line\n    indented\n\ttab",
    "end of text .  What ? no !",
]  # fmt: skip
WORDS = [["The", "quick", "brown"], ["don't", "", "Paris."], [" blank", "é🙂"]]
PAIR = ("The quick brown fox jumps", "over the lazy dog, and the dog sleeps on")
ALL = {
    "return_token_type_ids": True,
    "return_special_tokens_mask": True,
    "return_offsets_mapping": True,
    "return_length": True,
}


def calls() -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Method, arguments. "()" is the call of the tokenizer itself; "where" also tells where its tokens came from;
    "there and back" decodes what a text was encoded to.
    """
    long = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. A list of colors."
    three = ["a", long, "Hello world"]
    found: list[tuple[str, list[Any], dict[str, Any]]] = []
    found += [("()", [TEXTS], {}), ("there and back", [TEXTS], {})]
    found += [
        ("where", [text], ALL) for text in ("Hello world", "  two  blanks ", "<s>a</s>", "e\u0301🙂b", "x <tool>y")
    ]
    found += [("()", [text], {"add_special_tokens": False}) for text in ("", "Hello world", "<s>x</s>")]
    found += [("where", list(PAIR), ALL), ("()", [[PAIR, ("a", "b")]], ALL), ("()", [["a", "b"], ["c", "d d"]], ALL)]
    found += [("where", list(PAIR), ALL | {"add_special_tokens": False})]
    found += [("()", ["a", ""], {}), ("()", [["a"], [""]], {})]
    found += [("where", [WORDS], ALL | {"is_split_into_words": True, "padding": True})]
    found += [("()", [WORDS[0], WORDS[1]], ALL | {"is_split_into_words": True})]
    for side in ("left", "right"):
        found += [("where", [["a", "b c"]], ALL | {"padding": True, "padding_side": side})]
        found += [("()", [three], {"padding": "longest", "pad_to_multiple_of": 8, "padding_side": side})]
        found += [("()", [["a", "b c"]], {"padding": "max_length", "max_length": 12, "padding_side": side})]
    found += [("()", [three], {"padding": "max_length", "max_length": 6})]
    found += [("()", [["a", "b c"]], {"padding": "max_length"})]
    found += [("()", ["a"], {"padding": True, "pad_to_multiple_of": 4})]
    found += [("()", [["a", "b c"]], {"padding": "max_length", "max_length": 9, "pad_to_multiple_of": 4})]
    found += [("()", [long], {"max_length": 7}), ("()", [long], {"max_length": 7, "truncation": True})]
    found += [("()", [long], {"truncation": True}), ("()", [long], {"max_length": 2, "truncation": True})]
    for most, stride in ((8, 0), (8, 3)):
        cut = {"max_length": most, "stride": stride, "truncation": True, "return_overflowing_tokens": True}
        found += [("where", [PAIR[0]], ALL | cut), ("()", [three], cut | {"padding": True}), ("()", [three], cut)]
    for strategy in ("longest_first", "only_first", "only_second"):
        for most in (10, 20):
            cut = {"max_length": most, "truncation": strategy}
            both = {"longest_first": PAIR, "only_first": (long, "a"), "only_second": ("b", long)}[strategy]
            found += [("()", list(both), ALL | cut), ("()", list(both), cut | {"return_overflowing_tokens": True})]
    found += [("()", list(PAIR[::-1]), {"max_length": 11, "truncation": True})]
    found += [("()", [[PAIR, ("a", "b")]], {"max_length": 9, "truncation": True, "padding": True})]
    found += [("()", [three], {"max_length": 8, "truncation": True, "padding": True, "pad_to_multiple_of": 8})]
    found += [("()", [["a", "b"], [long, "c"]], {"max_length": 15, "stride": 2, "truncation": "only_second",
               "padding": "max_length", "return_overflowing_tokens": True})]  # fmt: skip
    found += [("encode", [text], {}) for text in ("Hello world", "<s>")]
    found += [("encode", ["Hello world"], {"add_special_tokens": False}), ("encode", list(PAIR), {"max_length": 6})]
    found += [("tokenize", [text], {}) for text in ("Hello world", "é🙂 <tool>x")]
    found += [("tokenize", ["Hello"], {"add_special_tokens": True})]
    found += [("num_special_tokens_to_add", [], {"pair": pair}) for pair in (True, False)]
    found += [("convert_tokens_to_ids", [tokens], {}) for tokens in ("the", ["the", "<s>", "nonsense!", "<tool>"])]
    found += [("convert_ids_to_tokens", [ids], {}) for ids in (5, [0, 1, 2, 300], [300, 1, 305])]
    found += [("convert_ids_to_tokens", [[0, 1, 2, 300]], {"skip_special_tokens": True})]
    ids = [[], [0], [1, 2], [300, 301, 1, 302], list(range(0, 320, 7)), [2, 2, 2], [195, 169], [250, 0, 251], [99999]]
    ids += [[1, 310, 311, 0, 312], [259, 260, 261], [320, 320], [3 + 0xF0, 3 + 0x9F, 3 + 0x99, 3 + 0x82, 320]]
    found += [("batch_decode", [ids], {"skip_special_tokens": skip}) for skip in (True, False)]
    found += [
        ("decode", [ids[3]], {}),
        ("decode", [ids], {}),
        ("decode", [300], {}),
        ("batch_decode", [[300, 301]], {}),
    ]
    found += [("decode", [ids[3]], {"clean_up_tokenization_spaces": clean}) for clean in (True, False)]
    rows = {"input_ids": [[5, 6, 7], [8]], "attention_mask": [[1, 1, 1], [1]]}
    for options in ({}, {"padding": "max_length", "max_length": 6}, {"pad_to_multiple_of": 4, "padding_side": "left"}):
        found += [("pad", [rows], options)]
    found += [("pad", [[{"input_ids": [5, 6]}, {"input_ids": [7]}]], {}), ("pad", [{"input_ids": [5, 6]}], {})]
    found += [("pad", [{"input_ids": [5, 6]}], {"padding": "max_length", "max_length": 4})]
    return found


ATTRIBUTES = (
    "bos_token", "bos_token_id", "eos_token", "eos_token_id", "unk_token", "unk_token_id", "pad_token", "pad_token_id",
    "sep_token_id", "all_special_tokens", "all_special_ids", "special_tokens_map", "extra_special_tokens", "vocab_size",
    "model_max_length", "padding_side", "truncation_side", "is_fast", "model_input_names",
)  # fmt: skip


def answer(tokenizer: Any, method: str, arguments: list[Any], options: dict[str, Any]) -> Any:
    """What a call gives, as JSON has it."""
    arguments = [tuples(argument) for argument in arguments]
    if method == "there and back":
        ids = tokenizer(arguments[0])["input_ids"]
        return [tokenizer.batch_decode(ids), tokenizer.batch_decode(ids, skip_special_tokens=True)]
    if method == "pad":
        return dict(tokenizer.pad(json.loads(json.dumps(arguments[0])), **options))
    if method not in ("()", "where"):
        return getattr(tokenizer, method)(*arguments, **options)
    out = tokenizer(*arguments, **options)
    if method == "()":
        return dict(out)
    rows = range(len(out.encodings))
    places = [[(i, j) for j in range(len(out.tokens(i)))] for i in rows]
    words = [(i, min(word for word in out.word_ids(i) if word is not None)) for i in rows]
    return dict(out) | {
        "n_sequences": out.n_sequences,
        "tokens": [out.tokens(i) for i in rows],
        "word_ids": [out.word_ids(i) for i in rows],
        "sequence_ids": [out.sequence_ids(i) for i in rows],
        "token_to_chars": [
            [out.token_to_chars(*place) for place in row if out.token_to_sequence(*place) is not None] for row in places
        ],
        "token_to_word": [[out.token_to_word(*place) for place in row] for row in places],
        "token_to_sequence": [[out.token_to_sequence(*place) for place in row] for row in places],
        "char_to_token": [[out.char_to_token(i, j) for j in range(8)] for i in rows],
        "char_to_word": [[out.char_to_word(i, j) for j in range(8)] for i in rows],
        "word_to_tokens": [out.word_to_tokens(*word) for word in words],
        "word_to_chars": [out.word_to_chars(*word) for word in words],
    }


def tuples(value: Any) -> Any:
    """Lists of two texts in a list are pairs, which JSON has no tuples for."""
    return [tuple(row) for row in value] if value == [list(PAIR), ["a", "b"]] else value


def vocabularies() -> dict[str, dict[str, Any]]:
    """The files of four small tokenizers: {kind: {name: content}}."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors, trainers
    from tokenizers import pre_tokenizers as pre

    from checkpoints import tokenizer_json

    spm = json.loads(tokenizer_json("sentencepiece", 420))
    qwen = json.loads(tokenizer_json("bytelevel", 420))

    raw = Tokenizer(models.BPE(ignore_merges=True))
    words = pre.Split(Regex(LLAMA3_WORDS), "isolated")
    raw.pre_tokenizer = pre.Sequence([words, pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    options = {"vocab_size": 360, "show_progress": False, "initial_alphabet": pre.ByteLevel.alphabet()}
    raw.train_from_iterator(LINES, trainers.BpeTrainer(**options))
    raw.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    raw.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    raw.add_tokens([AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False)])
    bos = processors.TemplateProcessing(
        single=f"{special[0]} $A", pair=f"{special[0]} $A {special[0]}:1 $B:1", special_tokens=[(special[0], 360)]
    )
    raw.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), bos])
    llama3 = json.loads(raw.to_str())

    raw = Tokenizer(models.Unigram())
    raw.normalizer = normalizers.NFKC()
    raw.pre_tokenizer = pre.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=340, show_progress=False, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"]
    )
    raw.train_from_iterator([line for line in LINES for _ in range(4)], trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>:1", special_tokens=[("</s>", 1)]
    )
    unigram = json.loads(raw.to_str())

    fast = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "model_max_length": 24}
    im = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "extra_special_tokens": ["<|im_start|>"]}
    ends = {"bos_token": special[0], "eos_token": special[1], "model_max_length": 1000000000000000019884624838656}
    return {
        "sentencepiece": {
            "tokenizer.json": spm,
            "tokenizer_config.json": fast | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
            "special_tokens_map.json": {"pad_token": {"content": "</s>", "lstrip": False, "normalized": False,
                                        "rstrip": False, "single_word": False}},
        },
        "bytelevel": {"tokenizer.json": qwen, "tokenizer_config.json": fast | im | {"padding_side": "left"}},
        "llama3": {
            "tokenizer.json": llama3,
            "tokenizer_config.json": fast | ends | {"pad_token": "<|pad|>", "truncation_side": "left"},
        },
        "unigram": {
            "tokenizer.json": unigram,
            "tokenizer_config.json": fast | {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
                                             "clean_up_tokenization_spaces": True,
                                             "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
        },
    }  # fmt: skip


def default_model() -> Any:
    """The default model's tokenizer as its makers publish it, from the tokens and merges in its file."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from tokenizers import pre_tokenizers as pre
    from transformers import PreTrainedTokenizerFast

    from quickbrown.weights.gguf import GgufSource
    from quickbrown.weights.hub import locate

    metadata = GgufSource(locate("smollm2-135m")).metadata
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    raw.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    raw.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    raw.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    ends = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|im_end|>", model_max_length=8192, **ends)


def told(tokenizer: Any, asked: list[tuple[str, list[Any], dict[str, Any]]]) -> dict[str, Any]:
    """All that a tokenizer is asked, and its answers; calls that it refuses are left out."""
    found = []
    for method, arguments, options in asked:
        try:
            said = json.loads(json.dumps(answer(tokenizer, method, arguments, options)))
        except Exception as error:
            print(f"left out: {method} {str(arguments)[:60]} {options}: {type(error).__name__}: {error}")
            continue
        found.append([method, arguments, options, said])
    return {"attributes": {name: getattr(tokenizer, name) for name in ATTRIBUTES}, "calls": found}


def main() -> None:
    from transformers import AutoTokenizer

    kinds: dict[str, Any] = {}
    for kind, files in vocabularies().items():
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_text(json.dumps(content), "utf-8")
            kinds[kind] = {"files": files} | told(AutoTokenizer.from_pretrained(folder), calls())
    kinds["smollm2-135m"] = told(default_model(), calls()[:12])
    golden = {
        "made_by": "tests/golden/transformers/make_tokenizers.py",
        "transformers": version("transformers"),
        "tokenizers": version("tokenizers"),
        "kinds": kinds,
    }
    FILE.write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
