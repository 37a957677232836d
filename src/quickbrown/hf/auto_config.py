"""What config.json says of a model."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickbrown.hf.generation_fields import FIELDS
from quickbrown.types import UnknownOption

_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
# Fields of a generation config that do not describe a model too.
_GENERATION = FIELDS.keys() - {
    "use_cache", "decoder_start_token_id", "output_attentions", "output_hidden_states", *_TOKENS
}  # fmt: skip


class PretrainedConfig:
    """The fields of config.json as attributes, those that it leaves out with what they mean; read by `AutoConfig`.

    Rotary positions are in `rope_parameters`, however the file spells them. Changing a field does not change a model
    that was loaded; how it writes is changed in `model.generation_config`, and to set that here raises ValueError.
    """

    model_type: str
    name_or_path: str

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _GENERATION:
            raise ValueError(f"{name} is no field of a model's config; set it in model.generation_config")
        self.__dict__[name] = value

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """Itself: the models that are read are of text alone."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return {name: copy.deepcopy(value) for name, value in self.__dict__.items() if name != "name_or_path"}

    def to_json_string(self) -> str:
        """The text of a config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write `to_json_string` to a file."""
        Path(json_file_path).write_text(self.to_json_string(), "utf-8")

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write config.json to a folder, which is made if it is not there."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(save_directory) / "config.json")

    def update(self, config_dict: dict[str, Any]) -> None:
        """Set fields."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretrainedConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


class AutoConfig:
    """Reads configs."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        gguf_file: str | None = None,
        trust_remote_code: bool = False,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The config of a model: of a folder or repository its config.json, of a GGUF file what its settings amount to.

        kwargs                fields to set
        return_unused_kwargs  a pair: the config, and the keywords that are none of its fields
        trust_remote_code     a permission that is not used: a model's own code is never run

        Raises HubError for a model that cannot be had, BadFile for one that is damaged or of a family that is not
        supported, UnknownOption for a keyword that is no field of it.
        """
        from quickbrown.weights.hub import locate

        place = locate(
            pretrained_model_name_or_path,
            files="config",
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
            subfolder=subfolder,
            gguf_file=gguf_file,
        )
        config = PretrainedConfig(name_or_path=os.fspath(pretrained_model_name_or_path), **_fields(place))
        left = {name: value for name, value in kwargs.items() if name not in config.__dict__}
        if left and not return_unused_kwargs:
            raise UnknownOption(next(iter(left)), list(config))
        config.update({name: value for name, value in kwargs.items() if name not in left})
        return (config, left) if return_unused_kwargs else config


def _fields(place: Path) -> dict[str, Any]:
    """What is published in a folder or GGUF file, and over it what it means."""
    if place.is_file():
        from quickbrown.weights.gguf import GgufSource

        source = GgufSource(place)
        keys = {name: f"tokenizer.ggml.{name}" for name in ("bos_token_id", "eos_token_id")}
        published = {name: source.metadata[key] for name, key in keys.items() if key in source.metadata}
        meant = source.config
    else:
        from quickbrown.weights.config import raw_config, resolve

        published = raw_config(place)
        meant = resolve(published, place / "config.json")
        if (dtype := published.pop("torch_dtype", None)) is not None:
            published.setdefault("dtype", dtype)
        for name in ("rope_scaling", "rope_theta", *_GENERATION):
            published.pop(name, None)
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in meant.items()}
    return {**dict.fromkeys(_TOKENS), "is_encoder_decoder": False, **published, **lists}
