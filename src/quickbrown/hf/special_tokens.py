"""The special tokens of a tokenizer by name, `tokenizer.eos_token` and `tokenizer.eos_token_id`, to read and to set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quickbrown.text.files import NAMED
from quickbrown.types import UnknownOption

if TYPE_CHECKING:
    import tokenizers
    from tokenizers import AddedToken


class _Text:
    """A special token's text, None where there is none. Assigning another token of the vocabulary changes it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tokens: SpecialTokens, owner: type | None = None) -> str | None:
        return tokens.named.get(self.name)

    def __set__(self, tokens: SpecialTokens, token: str | AddedToken | None) -> None:
        if token is None:
            tokens.named.pop(self.name, None)
            return
        text = text_of(token, self.name)
        if tokens.backend_tokenizer.token_to_id(text) is None:
            raise ValueError(
                f"{text!r} is not in the vocabulary; take a token that is, such as {self.name} = tokenizer.eos_token, "
                f"or add it: tokenizer.add_special_tokens({{{self.name!r}: {text!r}}})"
            )
        tokens.named[self.name] = text


class _Id:
    """A special token's id, None where there is none. Assigning another id changes the token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.text = name, name.removesuffix("_id")

    def __get__(self, tokens: SpecialTokens, owner: type | None = None) -> int | None:
        text = tokens.named.get(self.text)
        return None if text is None else tokens.backend_tokenizer.token_to_id(text)

    def __set__(self, tokens: SpecialTokens, token: int | None) -> None:
        text = None
        if token is not None:
            if not isinstance(token, int) or isinstance(token, bool) or token < 0:
                raise ValueError(f"{self.name} must be the id of a token, not {token!r}")
            if (text := tokens.backend_tokenizer.id_to_token(token)) is None:
                raise ValueError(f"{self.name} must be the id of a token, and the vocabulary has no token {token}")
        setattr(tokens, self.text, text)


class SpecialTokens:
    """What `PreTrainedTokenizer` knows of its special tokens.

    named                 their texts by name: the usual ones, and those of the model's own, as image_token
    extra_special_tokens  the texts of those that have no name
    """

    named: dict[str, str]
    extra_special_tokens: list[str]

    bos_token, bos_token_id = _Text(), _Id()
    eos_token, eos_token_id = _Text(), _Id()
    unk_token, unk_token_id = _Text(), _Id()
    sep_token, sep_token_id = _Text(), _Id()
    pad_token, pad_token_id = _Text(), _Id()
    cls_token, cls_token_id = _Text(), _Id()
    mask_token, mask_token_id = _Text(), _Id()

    pad_token_type_id = 0

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        """The `tokenizers.Tokenizer` behind it."""
        raise NotImplementedError

    def vocabulary_changed(self) -> None:
        """Tokens were added."""
        raise NotImplementedError

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The text of each special token that has a name."""
        return dict(self.named)

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of all special tokens, those with a name first, each once."""
        return list(dict.fromkeys([*self.named.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        ids = [self.backend_tokenizer.token_to_id(token) for token in self.all_special_tokens]
        return [i for i in ids if i is not None]

    @property
    def additional_special_tokens(self) -> list[str]:
        """An older name of `extra_special_tokens`."""
        return self.extra_special_tokens

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are whole in any text, special or not, by their ids."""
        return dict(sorted(self.backend_tokenizer.get_added_tokens_decoder().items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the tokens that are whole in any text."""
        return {token.content: i for i, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """The ids of the tokens that are whole in any text."""
        return self.added_tokens_encoder

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens to the vocabulary, behind the last; returns how many were not there.

        The model does not know them: its embedding has no rows for ids that are new.
        """
        listed = new_tokens if isinstance(new_tokens, (list, tuple)) else [new_tokens]
        for token in listed:
            text_of(token, "a token")
        add = self.backend_tokenizer.add_special_tokens if special_tokens else self.backend_tokenizer.add_tokens
        count: int = add(list(listed))
        self.vocabulary_changed()
        return count

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Give special tokens their names, `{"pad_token": "<pad>"}`, and add those that the vocabulary lacks; returns
        how many it lacked. `extra_special_tokens` takes a list.

        Raises UnknownOption for another name, TypeError for what is no token.
        """
        from tokenizers import AddedToken

        given = dict(special_tokens_dict)
        if "additional_special_tokens" in given:
            given["extra_special_tokens"] = given.pop("additional_special_tokens")
        for name in given:
            if name not in (*NAMED, "extra_special_tokens"):
                raise UnknownOption(name, [*NAMED, "extra_special_tokens"])
        extra = given.pop("extra_special_tokens", None)
        listed = [] if extra is None else list(extra) if isinstance(extra, (list, tuple)) else None
        if listed is None:
            raise TypeError(f"extra_special_tokens must be a list of tokens, not {type(extra).__name__}")
        tokens = [*given.items(), *(("extra_special_tokens", token) for token in listed)]
        texts = [text_of(token, name) for name, token in tokens]
        known = {token.content for token in self.added_tokens_decoder.values() if token.special}
        new = [token for _, token in tokens if not isinstance(token, str) or token not in known]
        made = [AddedToken(t, special=True, normalized=False) if isinstance(t, str) else t for t in new]
        count = self.add_tokens(made, special_tokens=True) if made else 0
        self.named |= dict(zip(given, texts, strict=False))
        if listed:
            kept = [] if replace_extra_special_tokens else self.extra_special_tokens
            self.extra_special_tokens = list(dict.fromkeys([*kept, *texts[len(given) :]]))
        return count

    def get_special_tokens_mask(
        self, token_ids_0: Sequence[int], token_ids_1: None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for each special token of a row of ids that has them, else 0."""
        if not already_has_special_tokens or token_ids_1 is not None:
            raise ValueError(
                "get_special_tokens_mask takes one row that has its special tokens (already_has_special_tokens=True); "
                "tokenizer(text, return_special_tokens_mask=True) gives the mask of a text"
            )
        special = set(self.all_special_ids)
        return [int(int(token) in special) for token in token_ids_0]


def text_of(token: Any, name: str) -> str:
    """The text of a token, which is a str or an AddedToken. Raises TypeError, ValueError for an empty one."""
    text = token if isinstance(token, str) else getattr(token, "content", None)
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or an AddedToken, not {type(token).__name__}")
    if not text:
        raise ValueError(f"{name} must not be empty")
    return text
