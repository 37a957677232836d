"""Writes docs/families.md, which says what runs, from the code's own tables and from what is tested."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from configs import ROWS, family
from gguf_writer import holds
from quantized import CHECKPOINTS
from quickbrown.models.families import ARCHITECTURES, MODEL_TYPES
from quickbrown.quant.encodings import ENCODINGS
from quickbrown.quant.formats import FORMATS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "families.md"
COMMAND = "python tests/families_page.py"

# Families that are to come; one that has come is passed over, so that nobody need take it out.
WANTED = (
    "bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5", "exaone4", "falcon", "falcon_h1",
    "gemma", "gemma2", "gemma3", "gemma4", "glm4", "glm4_moe", "gpt2", "gpt_neox", "gpt_oss", "gptj", "granite",
    "granitemoe", "granitemoehybrid", "lfm2", "mamba2", "mixtral", "mpt", "nemotron", "nemotron_h", "olmo2",
    "olmo3", "olmoe", "opt", "phi", "phi3", "qwen2_moe", "qwen3_5", "qwen3_moe", "qwen3_next", "seed_oss",
    "smollm3", "stablelm", "starcoder2",
)  # fmt: skip

ABOUT = f"""# What runs

This page is made from the code and its tests. `{COMMAND}` rewrites it, and a test fails where it is not
current.

## Families

A family is what `model_type` in config.json names, and one file of `src/quickbrown/models/`
([Add a family](add-a-family.md)). Each row of `tests/configs.py` is a tiny model with other options. All of them run on
both backends, `native` (C++) and `reference` (numpy, the specification), in float32 and quantized, and give the logits
and the text that transformers gives. Those whose options GGUF can say give the same bytes from a GGUF file. GGUF files
of Mistral's models say that they are `llama`. GGUF has no GPT-J and no OPT. It has DeepSeek, Gemma 4 and families with
states that say "no" here, but their files hold weights rearranged or computed in ways that are not read yet: those are
refused by name. So are a Nemotron-H with experts, and fields of a config that change the mathematics and are not
honoured. Of models that also see or hear, the text runs.
"""
FORMATS_ABOUT = """
## Formats of tensors

How weights are encoded. A format has a packed kernel, compiled for each instruction set from the same source, or is
held in the smallest format with a kernel that has all of its values, or is rounded to `f32` where none has. *Bits* are
those of a value in the file, scales included. *Encoded* are those that other weights can be quantized to while loading.
NEON's are tested under an emulator (`make test-neon`); not run: a model on such a machine.
"""
ENCODINGS_ABOUT = """
## Published quantizations

What `quantization_config` in config.json may say ([Quantized checkpoints](quantized-checkpoints.md)). *Held in* are the
formats of the tiny checkpoints that tests write in the published layout and run beside their values in float32.
"""


def page() -> str:
    return "\n".join([ABOUT, *families(), *formats(), *encodings(), ""])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def families() -> list[str]:
    rows = []
    for model_type in sorted(MODEL_TYPES):
        tested = [name for name in ROWS if family(name) == model_type]
        said = [name for name in tested if holds(**ROWS[name])]
        names = " ".join(f"`{name}`" for name, file in ARCHITECTURES.items() if file == MODEL_TYPES[model_type])
        in_gguf = names or "no"
        runs = "yes" if tested else "untested"
        rows.append([f"`{model_type}`", runs, in_gguf, runs, runs, f"{len(tested)}, {len(said)} in GGUF"])
    missing = ", ".join(f"`{name}`" for name in sorted(WANTED) if name not in MODEL_TYPES)
    head = ("family", "safetensors", "GGUF", "native", "reference", "models tested")
    return [*table(head, rows), *(["", f"Not yet: {missing}."] if missing else [])]


def formats() -> list[str]:
    isas = [name for name in ("scalar", "avx2", "avx512", "neon") if (kernels() / "vec" / f"{name}.h").exists()]
    shown = {"scalar": "scalar", "avx2": "AVX2", "avx512": "AVX-512", "neon": "NEON"}
    native, encoded = native_formats()
    rows = []
    for form in FORMATS.values():
        kernel = "yes" if form.name in native else f"{'held in' if form.exact else 'rounded to'} `{form.held}`"
        number = "" if form.ggml_type is None else str(form.ggml_type)
        can = "yes" if form.name in encoded else ""
        rows.append([f"`{form.name}`", f"{form.bits:g}", str(form.block), number, *[kernel] * len(isas), can])
    head = ("format", "bits", "values a block", "type in GGUF", *(shown[isa] for isa in isas), "encoded")
    return [FORMATS_ABOUT, *table(head, rows)]


def kernels() -> Path:
    return ROOT / "csrc" / "kernels"


def native_formats() -> tuple[list[str], list[str]]:
    """The formats of the kernel table, and those of them that numbers can be encoded in."""
    text = (ROOT / "csrc" / "table.h").read_text("utf-8")
    listed = re.search(r"enum class Format : uint8_t \{(.*?)\};", text, re.DOTALL)
    count = re.search(r"kFormats = (\d+), kEncodable = (\d+);", text)
    assert listed
    assert count
    names = re.findall(r"\w+", re.sub(r"//.*", "", listed[1]))
    assert len(names) == int(count[1])
    return names, names[: int(count[2])]


def encodings() -> list[str]:
    rows = []
    for method in ENCODINGS:
        made = {name: held for name, (config, _, held) in CHECKPOINTS.items() if config["quant_method"] == method}
        held = " ".join(f"`{name}`" for name in dict.fromkeys(made.values())) or "tested on tensors alone"
        rows.append([f"`{method}`", held, str(len(made) or "")])
    return [ENCODINGS_ABOUT, *table(("quant_method", "held in", "checkpoints tested"), rows)]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE}")
