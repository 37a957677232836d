"""From a name like "org/name" to a folder on this machine: repositories of the Hugging Face Hub, and what keeps them.

`huggingface_hub` fetches them into its own cache, which other programs share, and reads HF_HOME, HF_TOKEN, HF_ENDPOINT
and HF_HUB_OFFLINE. Only the files that are read are fetched; of the weights, those that the index names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from quickbrown.weights.hub import HubError, Progress, near, part_names

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*", re.ASCII)

_CONFIG = ["config.json", "generation_config.json"]
_TOKENIZER = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_templates/*.jinja", "additional_chat_templates/*.jinja",
]  # fmt: skip
_OTHER_VOCABULARIES = ["tokenizer.model", "tiktoken.model", "*.tiktoken", "tekken.json"]  # where no tokenizer.json is
_WEIGHTS = ["model.safetensors.index.json", "quantize_config.json", "quant_config.json"]  # what describes them
_WANTED = {"config": _CONFIG, "tokenizer": _CONFIG + _TOKENIZER, "model": _CONFIG + _TOKENIZER + _WEIGHTS}


class Repository:
    """One repository at one revision, and how to ask for it. `fetch` raises HubError."""

    def __init__(
        self,
        name: str,
        *,
        revision: str | None,
        token: str | bool | None,
        cache_dir: str | os.PathLike[str] | None,
        local_files_only: bool,
        force_download: bool,
        progress: Progress | None,
    ) -> None:
        if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise HubError(f"{revision!r} is no revision: give a branch, a tag or a commit.")
        self.name = name
        self.revision = revision
        self.token = token
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        self.force = force_download
        self.progress = progress

    def fetch(self, files: str, subfolder: str, gguf_file: str | None) -> Path:
        """The folder of the files of a kind ("model", "tokenizer", "config"), or the GGUF file that is asked for."""
        before = subfolder + "/" if subfolder else ""
        if gguf_file is not None:
            at, _, name = (before + gguf_file).rpartition("/")
            wanted = [f"{at}/{part}" if at else part for part in part_names(name)]
            root = self._snapshot(wanted)
            for part in [before + gguf_file, *wanted]:
                if not (root / part).is_file():
                    raise HubError(f"{self.name} has no file {part}.")
            return root / before / gguf_file
        root = self._snapshot([before + name for name in _WANTED[files]])
        folder = root / subfolder
        if files != "config" and not (folder / "tokenizer.json").is_file():
            self._snapshot([before + name for name in _OTHER_VOCABULARIES], root.name)
        if files == "model":
            if not (folder / "config.json").is_file():
                raise HubError(
                    f"{self.name} has no {before}config.json; if it has GGUF files, name one of them with gguf_file=."
                )
            self._weights(root.name, folder, before)
        elif not any((folder / name).is_file() for name in _WANTED[files]):
            raise HubError(f"{self.name} has none of the files {', '.join(before + n for n in _WANTED[files][:3])}.")
        return folder

    def _weights(self, commit: str, folder: Path, before: str) -> None:
        from quickbrown.weights.safetensors import INDEX, STEM, WEIGHTS, index, stems
        from quickbrown.weights.source import BadFile

        missing: list[str] = []
        try:
            for stem in stems(folder):
                places = folder / (stem + INDEX)
                if stem != STEM:
                    self._snapshot([before + places.name], commit)
                names = sorted(set(index(places).values())) if places.is_file() else [stem + WEIGHTS]
                self._snapshot([before + name for name in names], commit)
                missing = [name for name in names if not (folder / name).is_file()]
                if not missing:
                    return
        except BadFile as error:
            raise HubError(str(error)) from None
        if self.offline:
            raise HubError(self._not_here())
        raise HubError(
            f"{self.name} has no {before}{missing[0]}; weights in other files, such as pickled ones "
            "(pytorch_model.bin), are not read: take a revision, or a conversion, that has safetensors."
        )

    def _snapshot(self, patterns: list[str], commit: str | None = None) -> Path:
        """The folder of the repository in the cache, with the files of these patterns in it, as far as it has them."""
        from huggingface_hub import snapshot_download

        try:
            with _bars(self.progress is None and sys.stderr.isatty()), self._watched():
                found = snapshot_download(
                    self.name,
                    revision=commit or self.revision,
                    token=self.token,
                    cache_dir=self.cache_dir,
                    local_files_only=self.offline,
                    force_download=self.force,
                    allow_patterns=patterns,
                    ignore_patterns=["*..*"],  # no way out of the folder
                    endpoint=os.environ.get("HF_ENDPOINT") or None,
                )
        except Exception as error:  # of this library, and of all those below it
            self._explain(error)
        return Path(found)

    def _not_here(self) -> str:
        from huggingface_hub import constants

        at = f" at revision {self.revision!r}" if self.revision else ""
        where = self.cache_dir or constants.HF_HUB_CACHE
        return (
            f"{self.name}{at} is not whole in {where}, and nothing is fetched because local_files_only or "
            "HF_HUB_OFFLINE says so."
        )

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Tells `progress` meanwhile how many bytes have come: the size that the cache has grown by."""
        tell = self.progress
        if tell is None:
            yield
            return
        from huggingface_hub import constants

        cache = self.cache_dir or Path(constants.HF_HUB_CACHE)
        blobs = cache / f"models--{self.name.replace('/', '--')}" / "blobs"
        there, done = _size(blobs), threading.Event()

        def watch() -> None:
            whole = False
            while not whole:
                whole = done.wait(0.2)
                if (come := _size(blobs) - there) > 0:
                    tell("downloading", come, 0)

        watcher = threading.Thread(target=watch, name="download progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _explain(self, error: Exception) -> NoReturn:
        """Raises a HubError of a sentence or two for what went wrong."""
        from huggingface_hub import constants, errors

        name, where = self.name, (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).partition("://")[2]
        cache = self.cache_dir or constants.HF_HUB_CACHE
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            what = f"{name} is gated: ask for access on its page at {where}, then pass token= or set HF_TOKEN."
        elif isinstance(error, errors.RepositoryNotFoundError):
            what = (
                f"there is no folder {name} here and no model of that name at {where}; check the spelling, and if it "
                "is private pass token= or set HF_TOKEN."
            )
            if known := near(name.rpartition("/")[2]):
                what += f" Did you mean {known}?"
        elif isinstance(error, errors.RevisionNotFoundError):
            what = f"{name} has no revision {self.revision!r}."
        elif self.offline or isinstance(cause, errors.OfflineModeIsEnabled):
            what = self._not_here()
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"the disk is full: {name} does not fit into {cache}."
        elif isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            what = f"{name} cannot be kept in {cache}: {error.strerror}."
        elif status == 401:
            what = f"{where} does not accept the token for {name}; pass another with token=, or token=False for none."
        elif status is not None:
            what = f"{name} cannot be fetched: {where} answered with error {status}."
        elif isinstance(error, (ValueError, TypeError)) and not isinstance(error, errors.LocalEntryNotFoundError):
            what = f"{name} cannot be fetched: {' '.join(str(error).split())[:300].rstrip('.')}."
        else:
            reason = type(cause or error).__name__
            what = (
                f"{name} is not whole in {cache}, and {where} cannot be reached ({reason}); check the network, or give "
                "the path of a folder that holds the model."
            )
        raise HubError(what) from error


def plain_path(name: str, value: str) -> str:
    """A path inside a repository or folder, as it was given. Raises HubError for one that could lead out of it."""
    if value and (set(value) & set("*?[\\:\0") or any(part in ("", ".", "..") for part in value.split("/"))):
        raise HubError(f"{name} must be a path inside the model's folder, such as a/b, not {value!r}.")
    return value


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Leave huggingface_hub's progress bars as they are, or keep them away for a while."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _size(folder: Path) -> int:
    """Bytes of the files in a folder in which files come and go."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat().st_size
    return total
