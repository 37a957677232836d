"""What reads bytes that nobody vouches for, one function a kind of file; each gives a value or the reader's own error.

A target takes the bytes and an empty folder to put them into. `Fault` is raised for whatever must not happen; a hang
and too much memory are for whoever runs it to see (`run.py`, `test_fuzz_corpus.py`).
"""

from __future__ import annotations

import contextlib
import dis
import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

import quickbrown
from checkpoints import tokenizer_json, write_checkpoint
from gguf_writer import tiny_gguf, write_gguf
from quantized import CHECKPOINTS
from quickbrown.quant.encodings import encoding
from quickbrown.quant.published import Published
from quickbrown.text.files import template_from_folder, tokenizer_from_folder
from quickbrown.text.gguf_vocab import template_from_gguf, tokenizer_from_gguf
from quickbrown.text.template import ChatTemplate
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.weights import kept
from quickbrown.weights.config import read_config
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.gguf_file import GgufFile
from quickbrown.weights.safetensors import SafetensorsSource

CODE = str(Path(quickbrown.__file__).parent)
TEXT = "The quick brown fox\u00e9 \U0001f98a <|im_end|></s>  1234\n"
TINY = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
MOST_SAID = 1500  # characters of an error
SAID: list[str] = []  # the errors of this run


class Fault(Exception):
    """What no bytes may cause."""


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """Nothing leaves but what a `raise` of the package's own code says in one line: a ValueError, as BadFile is."""
    try:
        with np.errstate(all="ignore"):
            yield
    except OSError as error:
        SAID.append(str(error))
    except ValueError as error:
        SAID.append(str(error))
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        assert at is not None
        code, said = at.tb_frame.f_code, str(error)
        if not code.co_filename.startswith(CODE) or code.co_code[at.tb_lasti] != dis.opmap["RAISE_VARARGS"]:
            raise Fault(f"an error that is not the reader's own: {error!r}") from error
        if not said or "\n" in said or len(said) > MOST_SAID:
            raise Fault(f"an error that is no sentence: {error!r}") from error
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}") from error


def _used(tokenizer: Tokenizer) -> None:
    with own_errors():
        tokenizer.decode(tokenizer.encode(TEXT, bos=True), skip_special=False)
    with own_errors():
        tokenizer.encode(TEXT, special=False)
    for token in range(min(tokenizer.vocab_size, 64)):
        tokenizer.token_bytes(token)


def _loaded(source: GgufSource | SafetensorsSource) -> None:
    for name in source.names()[:64]:
        with own_errors():
            source.get(name).decode()
        source.release(name)


def gguf(data: bytes, folder: Path) -> None:
    path = folder / "model.gguf"
    path.write_bytes(data)
    with own_errors():
        _loaded(GgufSource(path))


def gguf_vocabulary(data: bytes, folder: Path) -> None:
    path = folder / "model.gguf"
    path.write_bytes(data)
    with own_errors():
        metadata = GgufFile(path).metadata
        tokenizer = tokenizer_from_gguf(metadata, path, lazy=True)
        _used(tokenizer)
        template_from_gguf(metadata, tokenizer, path)
        _used(tokenizer_from_gguf(metadata, path))


def safetensors(data: bytes, folder: Path) -> None:
    """The config is that of a tiny Llama."""
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **TINY}), "utf-8")
    (folder / "model.safetensors").write_bytes(data)
    with own_errors():
        _loaded(SafetensorsSource(folder))


def config(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    with own_errors():
        read_config(folder)


def quantized(data: bytes, folder: Path) -> None:
    """{"config": quantization_config, "tensors": {suffix: [dtype, shape, bytes]}}, a NUL, the tensors end to end."""
    head, _, rest = data.partition(b"\0")
    try:
        said = json.loads(head)
        tensors = [(str(name), str(dtype), list(shape), size) for name, (dtype, shape, size) in said["tensors"].items()]
        described = dict(said["config"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    parts, at = {}, 0
    for name, dtype, shape, size in tensors:
        if not all(type(n) is int and 0 <= n < 1 << 40 for n in (*shape, size)) or size > len(rest) - at:
            return
        parts[name] = Published(dtype, tuple(shape), np.frombuffer(rest, np.uint8, size, at))
        at += size
    with own_errors():
        encoding(described).weight(parts).decode()


def _folder_tokenizer(name: str) -> Callable[[bytes, Path], None]:
    def target(data: bytes, folder: Path) -> None:
        (folder / name).write_bytes(data)
        with own_errors():
            tokenizer = tokenizer_from_folder(folder)
            _used(tokenizer)
            template_from_folder(folder, tokenizer)

    return target


def tokenizer_file(data: bytes, folder: Path) -> None:
    """tokenizer.json, kept as lists where it can be, which read a text as the library does."""
    (folder / "tokenizer.json").write_bytes(data)
    with own_errors():
        lists, whole = (tokenizer_from_folder(folder, lazy=lazy) for lazy in (True, False))
        _used(lists)
        _used(whole)
        if lists._unbuilt is not None:
            for special in (True, False):
                if lists.encode(TEXT, special) != whole.encode(TEXT, special):
                    raise Fault("lists read a text in another way than the library")


def tokenizer_settings(data: bytes, folder: Path) -> None:
    """tokenizer_config.json beside a vocabulary, and the same bytes as generation_config.json."""
    (folder / "tokenizer.json").write_text(tokenizer_json("bytelevel"), "utf-8")
    (folder / "generation_config.json").write_bytes(data)
    _folder_tokenizer("tokenizer_config.json")(data, folder)


def template(data: bytes, folder: Path) -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>"}]
    with own_errors():
        ChatTemplate(data.decode("utf-8", "replace"), "<s>", "</s>").render(said)


_HEAD = Struct("<8sQ32s")


def kept_file(data: bytes, folder: Path) -> None:
    """A description (with its right length and checksum, so that it is read) and an empty payload."""
    os.environ["XDG_CACHE_HOME"] = os.environ["QB_HOME"] = str(folder)
    place = kept.folder()
    place.mkdir(parents=True, exist_ok=True)
    path = place / "a.kept"
    path.write_bytes(_HEAD.pack(kept.MAGIC, len(data), sha256(data).digest()) + data)
    os.truncate(path, kept.HEADER + 1)
    path.chmod(0o600)
    with own_errors():
        for entry in kept.entries():
            if entry.description is not None:
                kept.stale(entry.description)
                kept.damage(entry)
        kept.of(folder)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "gguf": gguf,
    "gguf_vocabulary": gguf_vocabulary,
    "safetensors": safetensors,
    "config": config,
    "quantized": quantized,
    "tokenizer_json": tokenizer_file,
    "tokenizer_settings": tokenizer_settings,
    "sentencepiece": _folder_tokenizer("tokenizer.model"),
    "tiktoken": _folder_tokenizer("qwen.tiktoken"),
    "tekken": _folder_tokenizer("tekken.json"),
    "template": template,
    "kept": kept_file,
}


def seeds(target: str, folder: Path) -> list[bytes]:
    """Good files of a kind, as small as they can be: where a search begins."""
    settings, tensors = tiny_gguf(**{k: v for k, v in TINY.items() if k != "vocab_size"}, format="q8_0")
    match target:
        case "gguf":
            small = {k: v for k, v in settings.items() if not k.startswith("tokenizer.")}
            return [write_gguf(folder / "a", small, tensors).read_bytes()]
        case "gguf_vocabulary":
            words = {k: v for k, v in settings.items() if k.startswith(("tokenizer.", "general."))}
            pieces = {
                "tokenizer.ggml.model": "llama",
                "tokenizer.ggml.tokens": [
                    "<unk>",
                    "<s>",
                    "</s>",
                    "\u2581",
                    "a",
                    "\u2581a",
                    *(f"<0x{b:02X}>" for b in range(256)),
                ],
                "tokenizer.ggml.scores": [float(-i) for i in range(262)],
                "tokenizer.ggml.token_type": [np.int32(t) for t in (2, 3, 3, 1, 1, 1, *[6] * 256)],
            }
            return [write_gguf(folder / "a", made, {}).read_bytes() for made in (words, pieces)]
        case "safetensors":
            made = write_checkpoint(folder / "a", model_type="llama", tokenizer=None, **TINY)
            return [(made / "model.safetensors").read_bytes()]
        case "config":
            made = write_checkpoint(folder / "a", model_type="qwen2", tokenizer=None, **TINY)
            long = {"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}, **TINY}
            return [(made / "config.json").read_bytes(), json.dumps(long).encode()]
        case "quantized":
            return [_published(*CHECKPOINTS[name][:2]) for name in CHECKPOINTS]
        case "tokenizer_json":
            return [tokenizer_json(kind).encode() for kind in ("bytelevel", "sentencepiece")]
        case "tokenizer_settings":
            return [
                b'{"bos_token": "<s>", "added_tokens_decoder": {"3": {"content": "<a>", "special": true}},'
                b' "eos_token_id": [1], "extra_special_tokens": ["<b>"],'
                b' "chat_template": [{"name": "default", "template": "x"}]}'
            ]
        case "sentencepiece":
            return [_pieces(1), _pieces(2)]
        case "tiktoken":
            import base64

            return [b"".join(base64.b64encode(bytes([b])) + b" %d\n" % b for b in range(256)) + b"YWI= 256\n"]
        case "tekken":
            listed = [{"rank": i, "token_bytes": "YWI=" if i else "YQ==", "token_str": "a"} for i in range(2)]
            numbers = {"default_vocab_size": 4, "default_num_special_tokens": 2}
            special = [{"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(("<s>", "</s>"))]
            return [
                json.dumps(
                    {"config": {"pattern": "\\S+| +", **numbers}, "vocab": listed, "special_tokens": special}
                ).encode()
            ]
        case "template":
            return [
                b"{% for m in messages %}{{ m.role ~ m['content'] | trim }}{% if loop.last %}x{% endif %}{% endfor %}",
                b"{% set n = namespace(a=[1]) %}{% macro f(x) %}{{ x | tojson }}{% endmacro %}{{ f(n.a + [2 ** 3]) }}",
            ]
        case "kept":
            said = {"source": "/a", "kind": "k", "layout": "1", "facts": {}, "bytes": 1, "sha256": "0"}
            return [json.dumps(said | {"files": [["m", 1, 1, 1, 1, "0"]]}).encode()]
    raise ValueError(f"there are no good files of {target}")


def _published(described: dict[str, Any], encode: Any) -> bytes:
    values = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    tensors = encode(values)[0]
    listed = {name: [dtype, list(shape), len(data)] for name, (dtype, shape, data) in tensors.items()}
    head = json.dumps({"config": described, "tensors": listed}).encode()
    return head + b"\0" + b"".join(data for _, _, data in tensors.values())


def _pieces(kind: int) -> bytes:
    """A ModelProto of SentencePiece with few pieces; kind 1 is unigram, 2 merges."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    out = b""
    for text, of in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("\u2581", 1), ("a", 1), ("\u2581a", 1), ("<0x41>", 6)):
        out += field(1, field(1, text.encode()) + b"\x15" + np.float32(-1).tobytes() + bytes([3 << 3, of]))
    return out + field(2, bytes([3 << 3, kind])) + field(3, field(1, b"identity"))
