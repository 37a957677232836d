"""Loading: a name or a path, and how the weights are to be held."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from quickbrown.hf.generate import arguments
from quickbrown.hf.generation_config import GenerationConfig
from quickbrown.hf.model import PreTrainedModel, check_device
from quickbrown.hf.quantization import BitsAndBytesConfig
from quickbrown.llm import LLM
from quickbrown.types import UnknownOption
from quickbrown.weights import hub


class AutoModelForCausalLM:
    """Loads a decoder-only model; see `from_pretrained`."""

    def __init__(self) -> None:
        raise TypeError("AutoModelForCausalLM is not made but loaded: AutoModelForCausalLM.from_pretrained(name)")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        device_map: Any = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        load_in_4bit: bool = False,
        load_in_8bit: bool = False,
        quantization_config: BitsAndBytesConfig | Mapping[str, Any] | None = None,
        generation_config: GenerationConfig | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str = "",
        gguf_file: str | None = None,
        trust_remote_code: bool = False,
        low_cpu_mem_usage: bool = True,
        use_safetensors: bool | None = None,
        attn_implementation: str | None = None,
        threads: int | None = None,
        memory: int | str | None = None,
        kv_cache_dtype: str | None = "auto",
        **unknown: Any,
    ) -> PreTrainedModel:
        """Load a model by its name on the Hub, a name that `qb list` knows, or the path of a folder or a GGUF file.

        device_map           None, "auto", "cpu" or {"": "cpu"}: this computes on the CPU
        dtype                "auto" (as published), "bfloat16" or "float32", or torch's own; torch_dtype is its old name
        load_in_4bit         linear weights to 4 bits as they are loaded, in groups of 32 with a scale and a minimum
        load_in_8bit         the same to 8 bits
        quantization_config  a BitsAndBytesConfig, which names the code book too
        trust_remote_code    a permission that is not used: a model's own code is never run
        attn_implementation  None, "eager" or "sdpa"; there is one attention, which gives what they give
        threads, memory, kv_cache_dtype
                             as `LLM` takes them

        Raises hub.HubError for a model that cannot be had, BadFile for a damaged or unsupported one, UnknownOption for
        an argument that nothing honours, ValueError for values out of range.
        """
        for name in unknown:
            raise UnknownOption(name, arguments(AutoModelForCausalLM.from_pretrained))
        check_device(device_map)
        if attn_implementation not in (None, "eager", "sdpa"):
            raise ValueError(
                f"attn_implementation={attn_implementation!r} is not here; leave it out, the CPU has its own"
            )
        if use_safetensors is False:
            raise ValueError("use_safetensors=False asks for pickled weights, which are not read; leave it out")
        path = hub.locate(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            subfolder=subfolder,
            gguf_file=gguf_file,
        )
        llm = LLM(
            path,
            dtype=dtype_name(torch_dtype if dtype is None else dtype),
            quantize=quantization(load_in_4bit, load_in_8bit, quantization_config),
            threads=threads,
            memory=memory,
            kv_cache_dtype=kv_cache_dtype,
        )
        return PreTrainedModel(llm, os.fspath(pretrained_model_name_or_path), generation_config)


def dtype_name(dtype: Any) -> str:
    """ "auto", "float32" or "bfloat16", of a name or a torch dtype."""
    name = "auto" if dtype is None else str(dtype).removeprefix("torch.")
    if name in ("float16", "half"):
        raise ValueError(
            'dtype float16 is no gain on a CPU; use "auto", which keeps weights as published, or "bfloat16"'
        )
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f'dtype must be "auto", "bfloat16" or "float32", not {dtype!r}')
    return name


def quantization(in_4bit: bool, in_8bit: bool, config: BitsAndBytesConfig | Mapping[str, Any] | None) -> str | None:
    """What `LLM` calls it. Raises ValueError for two answers at once."""
    for name, value in (("load_in_4bit", in_4bit), ("load_in_8bit", in_8bit)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, not {value!r}")
    if in_4bit + in_8bit + (config is not None) > 1:
        raise ValueError("load_in_4bit, load_in_8bit and quantization_config exclude each other; give one of them")
    if config is not None:
        config = BitsAndBytesConfig.from_dict(dict(config)) if isinstance(config, Mapping) else config
        if not isinstance(config, BitsAndBytesConfig):
            raise TypeError(f"quantization_config must be a BitsAndBytesConfig, not {type(config).__name__}")
        return config.meaning()
    return "q4" if in_4bit else "q8" if in_8bit else None
