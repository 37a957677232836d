"""A stand-in for the Hugging Face Hub on this machine: folders as repositories, and a record of what was asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest


@dataclass
class Hub:
    """What is served, and to whom.

    repositories  "org/name" -> folder, or {revision: folder}; the revision of a folder alone is "main"
    tokens        repositories that only these tokens may read: "org/name" -> token
    gated         of those, the ones that everybody may know of
    asked         "METHOD path" of every request, in order
    broken        if set, the status of every answer
    """

    repositories: Mapping[str, Path | Mapping[str, Path]]
    tokens: Mapping[str, str] = field(default_factory=dict)
    gated: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    broken: int = 0
    url: str = ""

    def folder(self, name: str, revision: str) -> Path | None:
        """Of a branch, a tag, or a commit."""
        folders = self.repositories[name]
        folders = {"main": folders} if isinstance(folders, Path) else folders
        for known, folder in folders.items():
            if revision in (known, commit(folder)):
                return folder
        return None

    def fetched(self) -> list[str]:
        """The files whose bytes were sent, sorted."""
        return sorted(
            path.split("/resolve/")[1].partition("/")[2]
            for method, path in (line.split(" ", 1) for line in self.asked)
            if method == "GET" and "/resolve/" in path
        )


def commit(folder: Path) -> str:
    """The commit that a folder is at: a hash of its path."""
    return hashlib.sha1(str(folder).encode()).hexdigest()


def files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def serve(
    repositories: Mapping[str, Path | Mapping[str, Path]],
    tokens: Mapping[str, str] | None = None,
    gated: tuple[str, ...] = (),
) -> Iterator[Hub]:
    """A hub of these repositories, on a port of its own, while the context lasts."""
    hub = Hub(repositories, tokens or {}, frozenset(gated))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: Hub, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this hub the one that is asked and a folder the one that is the cache, for this process and its children."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache_dir))
    monkeypatch.setenv("HF_TOKEN_PATH", str(cache_dir / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache_dir))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache_dir / "no token"))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0]).strip("/")
        self.hub.asked.append(f"{self.command} /{path}")
        if self.hub.broken:
            return self._refuse(self.hub.broken)
        parts = path.split("/")
        if parts[:2] == ["api", "models"]:
            name, parts = "/".join(parts[2:4]), parts[4:]
        else:
            name, parts = "/".join(parts[:2]), parts[2:]
        verb, revision, rest = (parts[0] if parts else "revision"), (parts[1] if parts[1:] else "main"), parts[2:]
        token = self.hub.tokens.get(name)
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if name not in self.hub.repositories or (token and given != token and name not in self.hub.gated):
            # To strangers the Hub says this of what is not there as well.
            return self._refuse(404 if given else 401, "RepoNotFound")
        if verb == "resolve" and token and given != token:
            return self._refuse(403 if given else 401, "GatedRepo")
        folder = self.hub.folder(name, revision)
        if folder is None:
            return self._refuse(404, "RevisionNotFound")
        sha, there = commit(folder), files(folder)
        if verb == "revision":
            return self._json({"id": name, "sha": sha, "siblings": [{"rfilename": name} for name in there]})
        if verb == "tree":
            return self._json(
                [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                    for name, path in there.items()
                ]
            )
        if verb == "resolve" and "/".join(rest) in there:
            return self._file(there["/".join(rest)], sha)
        return self._refuse(404, "EntryNotFound")

    def _refuse(self, status: int, code: str = "") -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code} if code else {})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path, sha: str) -> None:
        data = path.read_bytes()
        headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        start = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        if not start or start == "0":
            return self._send(200, data, headers)
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(206, data[int(start) :], headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
