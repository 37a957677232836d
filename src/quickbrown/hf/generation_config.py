"""How a text is to be written, in the words of generation_config.json."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickbrown.hf.generation_fields import CACHES, FIELDS, SAMPLING, check, check_value, idle_knobs
from quickbrown.types import UnknownOption

if TYPE_CHECKING:
    from quickbrown.text.tokenizer import Tokenizer

FILE = "generation_config.json"
NEW_TOKENS = 20  # where nothing says how long a text may become

_LARGEST = 1 << 24  # bytes of a generation_config.json

_METADATA = ("_from_model_config", "transformers_version")
_PRIVATE = ("_commit_hash", "_original_object_hash", "_passed", "_assisted")
_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")
_OF_GENERATE = (
    "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus", "assistant_model", "streamer",
    "negative_prompt_ids", "negative_prompt_attention_mask",
)  # fmt: skip


class GenerationMode(str, enum.Enum):
    """The ways of decoding that a config can ask for; those beyond greedy and sample are not supported yet."""

    CONTRASTIVE_SEARCH = "contrastive_search"
    GREEDY_SEARCH = "greedy_search"
    SAMPLE = "sample"
    ASSISTED_GENERATION = "assisted_generation"
    DOLA_GENERATION = "dola_generation"
    BEAM_SEARCH = "beam_search"
    BEAM_SAMPLE = "beam_sample"
    CONSTRAINED_BEAM_SEARCH = "constrained_beam_search"
    GROUP_BEAM_SEARCH = "group_beam_search"


class GenerationConfig:
    """The fields of generation_config.json, each None until it is set; `generation_fields.py` has the table of them.

    Any other keyword is kept as an entry of its own: files may hold what nobody here reads. generate() refuses those
    that were not read from a file.

    Raises ValueError for what could never be honoured, in a sentence. That a field has no effect beside the others, or
    is not supported, is said by generate(), since others may still be set.
    """

    _passed: set[str]  # fields that somebody set by name: not those that came from a file

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **kwargs: Any) -> None:
        kwargs.pop("_commit_hash", None)
        self.__dict__.update(dict.fromkeys((*FIELDS, *_METADATA)), _passed=set())
        if kwargs.get("_from_model_config"):  # of which the other entries describe the model
            kwargs = {name: value for name, value in kwargs.items() if name in self.__dict__}
        for name, value in kwargs.items():
            setattr(self, name, value)
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
        if not name.startswith("_"):
            self._passed.add(name)

    # Files

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name: str | os.PathLike[str],
        config_file_name: str | os.PathLike[str] | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        **kwargs: Any,
    ) -> Any:
        """The config in a model's folder or repository; of a GGUF file, the tokens that begin and end its texts.

        return_unused_kwargs=True  a pair: the config, and the keywords that are none of its entries
        other keywords             entries that replace those of the file

        Raises OSError where there is no such file, BadFile where it is no JSON, HubError where there is no such model.
        """
        from quickbrown.weights.hub import locate

        place = locate(
            pretrained_model_name,
            files="config",
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
            subfolder=subfolder,
        )
        entries = _from_gguf(place) if place.is_file() else _read(place / (config_file_name or FILE))
        unused = kwargs.pop("return_unused_kwargs", False)
        config, left = cls.from_dict(entries, return_unused_kwargs=True, **kwargs)
        config._original_object_hash = hash(config)
        return (config, left) if unused else config

    @classmethod
    def from_model(cls, place: Path, tokenizer: Tokenizer | None = None) -> GenerationConfig:
        """The config of the model in a folder or GGUF file: from its generation_config.json, or else config.json.

        tokenizer  of the GGUF file, if it has been read already
        """
        if place.is_dir() and not (place / FILE).exists():
            return cls.from_model_config(_read(place / "config.json"))
        entries = _read(place / FILE) if place.is_dir() else _from_gguf(place, tokenizer)
        config: GenerationConfig = cls.from_dict(entries)
        config._original_object_hash = hash(config)
        return config

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        config_file_name: str | os.PathLike[str] | None = None,
        push_to_hub: bool = False,
    ) -> None:
        """Write the fields that are set to a file in a folder, which is made if it is not there.

        Raises ValueError for a config, changed since it was read, of which some fields would have no effect.
        """
        if push_to_hub:
            raise ValueError("push_to_hub is not supported; save the file and upload it with huggingface_hub")
        try:
            self.validate(strict=self.__dict__.get("_original_object_hash") != hash(self))
        except ValueError as error:
            raise ValueError(f"the generation config is not saved: {error}") from None
        folder = Path(save_directory)
        if folder.is_file():
            raise ValueError(f"{folder} is a file; save_pretrained writes to a folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / (config_file_name or FILE), keys_to_pop=["compile_config"])

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """A config of entries as a file has them; keywords as in `from_pretrained`."""
        unused = kwargs.pop("return_unused_kwargs", False)
        config = cls(**{**config_dict, **kwargs})
        config.__dict__["sequence_bias"] = _tuples(config.sequence_bias)
        config._passed.intersection_update(kwargs)
        left = {name: value for name, value in kwargs.items() if name not in config.__dict__}
        return (config, left) if unused else config

    @classmethod
    def from_model_config(cls, model_config: Any) -> GenerationConfig:
        """The generation fields that older models keep in their config.json: a dict, or a config of `AutoConfig`."""
        entries = dict(model_config if isinstance(model_config, Mapping) else model_config.to_dict())
        entries.pop("_from_model_config", None)
        nested = [entries[key] for key in ("decoder", "generator", "text_config") if entries.get(key)]
        merged = {
            **(nested[0] if nested else {}),
            **{name: value for name, value in entries.items() if value is not None},
        }
        known = {name: value for name, value in merged.items() if name in FIELDS or name == "transformers_version"}
        config: GenerationConfig = cls.from_dict({**known, "_from_model_config": True})
        if any(getattr(config, name) for name in _OUTPUTS):
            config.__dict__["return_dict_in_generate"] = True
        config._original_object_hash = hash(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """All entries, those that are None too."""
        return {name: copy.deepcopy(value) for name, value in self.__dict__.items() if name not in _PRIVATE}

    def to_diff_dict(self) -> dict[str, Any]:
        """The entries that are set."""
        return {name: value for name, value in self.to_dict().items() if value is not None or name not in _UNSET}

    def to_json_string(
        self, use_diff: bool = True, ignore_metadata: bool = False, keys_to_pop: list[str] | None = None
    ) -> str:
        """The text of a file: the entries that are set, or with use_diff=False all.

        ignore_metadata  leave out where the config came from
        keys_to_pop      entries to leave out
        """
        entries = self.to_diff_dict() if use_diff else self.to_dict()
        out = {*(keys_to_pop or ()), *(_METADATA if ignore_metadata else ())}
        plain = {name: _plain(value) for name, value in entries.items() if name not in out}
        return json.dumps(plain, indent=2, sort_keys=True) + "\n"

    def to_json_file(
        self, json_file_path: str | os.PathLike[str], use_diff: bool = True, keys_to_pop: list[str] | None = None
    ) -> None:
        """Write `to_json_string` to a file."""
        Path(json_file_path).write_text(self.to_json_string(use_diff, keys_to_pop=keys_to_pop), "utf-8")

    # Comparison: by all entries, wherever they came from

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationConfig):
            return NotImplemented
        return self.to_json_string(False, True) == other.to_json_string(False, True)

    def __hash__(self) -> int:
        return hash(self.to_json_string(ignore_metadata=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string(ignore_metadata=True)}"

    @staticmethod
    def fields() -> list[str]:
        """The names of all fields, supported and not."""
        return list(FIELDS)

    # Changes and checks

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Set entries that exist; the keywords that were not used come back.

        defaults_only         only those that are None
        allow_custom_entries  make entries that do not exist
        """
        left = {}
        for name, value in kwargs.items():
            there = name in self.__dict__
            if (allow_custom_entries and not there) or (
                there and not (defaults_only and self.__dict__[name] is not None)
            ):
                setattr(self, name, value)
            else:
                left[name] = value
        self.validate()
        return left

    def validate(self, strict: bool = False) -> None:
        """Raise ValueError for what could never be honoured; if strict, for fields without effect beside the others."""

        def refuse(name: str, meaning: str) -> None:
            raise ValueError(f"{name} must be {meaning}, not {getattr(self, name)!r}")

        for name in _OF_GENERATE:
            if name in self.__dict__:
                raise ValueError(f"{name} is no entry of a generation config; pass it to generate()")
        if self.early_stopping not in (None, True, False, "never"):
            refuse("early_stopping", 'True, False or "never"')
        check_value("max_new_tokens", self.max_new_tokens)
        if self.cache_implementation not in (None, *CACHES):
            refuse("cache_implementation", f"one of {', '.join(CACHES)}")
        if (weight := self.assistant_ensemble_weight) is not None and not 0 < weight < 1:
            refuse("assistant_ensemble_weight", "above 0 and below 1")
        if (self.num_return_sequences or 1) > 1:
            if self.num_beams in (None, 1) and self.do_sample is not True:
                raise ValueError(
                    f"num_return_sequences={self.num_return_sequences} needs do_sample=True: "
                    "without it all of them would be the same"
                )
            if (self.num_beams or 1) > 1 and self.num_return_sequences > self.num_beams:
                refuse("num_return_sequences", f"at most num_beams, which is {self.num_beams}")
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            forced = set(token_ids(getattr(self, name)))
            if forced and forced <= set(self.suppress_tokens or ()):
                raise ValueError(f"{name} and suppress_tokens hold the same token: it cannot be both forced and banned")
        if strict:
            issues = idle_knobs(self, FIELDS)
            issues |= {
                name: f"{name}=True has no effect without return_dict_in_generate=True"
                for name in _OUTPUTS
                if getattr(self, name) is True and self.return_dict_in_generate is not True
            }
            if self.pad_token_id is not None and self.pad_token_id < 0:
                issues["pad_token_id"] = f"pad_token_id must be a token id, not {self.pad_token_id}"
            if issues:
                raise ValueError("; ".join(issues.values()))

    def get_generation_mode(self, assistant_model: object = None) -> GenerationMode:
        """The way of decoding that the fields ask for."""
        mode = GenerationMode.SAMPLE if self.do_sample is True else GenerationMode.GREEDY_SEARCH
        if self.constraints is not None or self.force_words_ids is not None:
            mode = GenerationMode.CONSTRAINED_BEAM_SEARCH
        elif self.num_beams not in (None, 1):
            if (self.num_beam_groups or 1) > 1:
                mode = GenerationMode.GROUP_BEAM_SEARCH
            else:
                mode = GenerationMode.BEAM_SAMPLE if self.do_sample is True else GenerationMode.BEAM_SEARCH
        elif self.do_sample is not True and (self.top_k or 0) > 1 and (self.penalty_alpha or 0) > 0:
            mode = GenerationMode.CONTRASTIVE_SEARCH
        if mode in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
            drafts = (assistant_model, self.use_mtp or None, self.prompt_lookup_num_tokens, self.assistant_early_exit)
            if any(draft is not None for draft in drafts):
                mode = GenerationMode.ASSISTED_GENERATION
            if self.dola_layers is not None:
                mode = GenerationMode.DOLA_GENERATION
        return mode


_UNSET = frozenset((*FIELDS, *_METADATA))  # entries that every config has, None or not
# What a keyword that is None says, of fields that have a default: off.
_OFF = {name: field.default for name, field in FIELDS.items() if field.default is not None} | {"top_k": 0}


def merge(
    call: Mapping[str, Any], config: GenerationConfig | None, model: GenerationConfig, assisted: bool = False
) -> tuple[GenerationConfig, dict[str, Any]]:
    """What one call of generate() is to do: its keywords, before `config`, before the model's own, before the defaults.

    A None in a config lets the next one speak; a None among the keywords is meant. Returns a config of its own, and the
    keywords that are no fields. Every field that has a default is set; max_length and max_new_tokens stay None where
    nobody set them (see `new_tokens`).

    assisted  whether an assistant_model was given

    Raises ValueError, with what to do instead, for a value out of range, for a field that is not supported yet, whoever
    set it, and for one without effect beside the others (temperature without do_sample) if the caller set it: what a
    model's file brings along is used where it applies. UnknownOption for an entry that the caller made up.
    """
    merged = GenerationConfig()
    entries = merged.__dict__
    entries["_assisted"] = assisted
    for source in (model, config):
        for name, value in ({} if source is None else source.__dict__).items():
            if name not in _PRIVATE and name not in _METADATA and (value is not None or name not in entries):
                entries[name] = copy.deepcopy(value)
    if (
        entries["pad_token_id"] is not None and entries["pad_token_id"] < 0
    ):  # how some models' files say that there is none
        entries["pad_token_id"] = None
    for name, field in FIELDS.items():
        if name in call:
            entries[name] = call[name] if call[name] is not None or name not in _OFF else _OFF[name]
        elif entries[name] is None:
            entries[name] = field.default

    said = set() if config is None else set(config._passed)
    for name in said - model.__dict__.keys():
        raise UnknownOption(name, sorted(FIELDS))
    if "do_sample" in call:  # then what a config says about drawing is not said about this call
        said = {name for name in said if name in FIELDS and FIELDS[name].needs != SAMPLING}
    merged._passed = (said | call.keys()) & FIELDS.keys()
    check(merged, merged._passed)
    merged.validate()
    return merged, {name: value for name, value in call.items() if name not in FIELDS}


def new_tokens(config: GenerationConfig, prompt_length: int, positions_limit: int | None = None) -> int:
    """How many tokens may be written to prompts of so many, padding included: max_new_tokens, or what max_length
    leaves, or 20 that end at the model's last position. `config` is of `merge`.

    Raises ValueError where that leaves none, or fewer than min_new_tokens or min_length ask for.
    """
    if config.max_new_tokens is not None:
        most = int(config.max_new_tokens)
    elif config.max_length is not None:
        most = int(config.max_length) - prompt_length
        if most <= 0:
            raise ValueError(
                f"the prompt has {prompt_length} tokens and max_length={config.max_length} counts them too, "
                "so nothing could be written; pass max_new_tokens instead"
            )
    else:
        most = NEW_TOKENS if positions_limit is None else min(NEW_TOKENS, positions_limit - prompt_length)
        if most <= 0:
            raise ValueError(
                f"the prompt has {prompt_length} tokens and the model has room for {positions_limit} in all"
            )
    if (least := least_new_tokens(config, prompt_length)) > most:
        name = "min_length" if config.min_new_tokens is None else "min_new_tokens"
        raise ValueError(
            f"{name}={getattr(config, name)} asks for {least} new tokens, and at most {most} may be written; "
            f"make {name} smaller or max_new_tokens larger"
        )
    return most


def least_new_tokens(config: GenerationConfig, prompt_length: int) -> int:
    """How many tokens must be written to prompts of so many, padding included: min_new_tokens, or what min_length asks
    for beyond the prompt."""
    if config.min_new_tokens is not None:
        return int(config.min_new_tokens)
    return max(0, int(config.min_length or 0) - prompt_length)


def token_ids(value: Any) -> list[int]:
    """A field of one token id, several or none, as a list."""
    if value is None:
        return []
    return [int(i) for i in value] if isinstance(value, (list, tuple)) else [int(value)]


def _read(path: Path) -> dict[str, Any]:
    from quickbrown.weights.source import read_json

    try:
        return read_json(path, _LARGEST)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {path.name} in {path.parent}") from None


def _from_gguf(path: Path, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """The tokens that begin and end texts, by the vocabulary in a GGUF file."""
    from quickbrown.text.gguf_vocab import tokenizer_from_gguf
    from quickbrown.weights.gguf import GgufSource

    tokenizer = tokenizer or tokenizer_from_gguf(GgufSource(path).metadata, path)
    ends = sorted(tokenizer.eos_ids)
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": ends[0] if len(ends) == 1 else ends or None}


def _tuples(biases: Any) -> Any:
    """`sequence_bias` as it was before JSON made texts of its keys: "(1, 2)"."""
    if not isinstance(biases, Mapping):
        return biases
    return {tuple(map(int, re.findall(r"\d+", k))) if isinstance(k, str) else k: v for k, v in biases.items()}


def _plain(value: Any) -> Any:
    """What JSON can hold of a value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array's numbers
        return value.tolist()
    return value
