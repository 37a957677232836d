"""A server that speaks as OpenAI's does (POST /v1/chat/completions, streamed), as a source of answers."""

from __future__ import annotations

import contextlib
import difflib
import http.client
import ipaddress
import json
import os
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

from quickbrown.cli.chat.conversation import Message
from quickbrown.cli.chat.reasoning import Splitter
from quickbrown.cli.chat.source import Kind, Out, Outcome, Piece
from quickbrown.types import SamplingParams

CONNECT, SILENCE = 10.0, 600.0  # seconds that a server may take to be reached, and to say something
LINE = 1 << 20  # bytes of a line that it sends, at most
ANSWER = 1 << 24  # characters of an answer, at most
# What an option is called there. The last two are no option of OpenAI's own; most others take them.
NAMES = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "top_k": "top_k",
    "min_p": "min_p",
}


class ServerError(RuntimeError):
    """A server that cannot be asked, or that fails. The message is a sentence."""


class Server:
    """A server's model.

    url   up to what comes before /chat/completions
    name  of the model; "" is the first that the server lists
    key   what it is told in the header Authorization
    """

    def __init__(self, url: str, name: str = "", key: str | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.username is not None:
            raise ValueError(f"--url takes an address like http://localhost:8080/v1, not {url!r}")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError("the key for the server has characters that no key has; see --api-key and OPENAI_API_KEY")
        self.url, self.name = url, name
        self._key = key
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, port
        self._path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self._known: dict[str, int | None] = {}  # models, and the context of each, if the server says it

    @property
    def context(self) -> int | None:
        return self._known.get(self.name)

    def load(self) -> None:
        """Ask for its models. A server that has no such list is asked for the model by name."""
        exchange = Exchange(self)
        try:
            status, data = exchange.read("GET", "/models")
        finally:
            exchange.close()
        if status in (401, 403):
            raise ServerError(said(self, status, data))
        listed = data.get("data") if isinstance(data, dict) and status == 200 else None
        for model in listed if isinstance(listed, list) else []:
            if isinstance(model, dict) and isinstance(model.get("id"), str):
                self._known[model["id"]] = context_of(model)
        if not self.name:
            if not self._known:
                raise ServerError(f"{self.url} lists no models (status {status}); name one with --model")
            self.name = next(iter(self._known))

    def check(self, options: dict[str, Any]) -> None:
        SamplingParams.from_options(dict(options))
        for name in options:
            if name not in NAMES:
                raise ValueError(f"a server cannot be told {name}; it can be told {', '.join(NAMES)}")

    def answer(self, messages: Sequence[Message], options: dict[str, Any], goes_on: bool, out: Out) -> Asked:
        self.check(options)
        body: dict[str, Any] = {"model": self.name, "stream": True, "stream_options": {"include_usage": True}}
        body["messages"] = [message.plain for message in messages]
        body |= {NAMES[name]: value for name, value in options.items()}
        if goes_on:
            if not messages[-1].content:
                raise ValueError("a server cannot be told to go on with a thought; /retry asks again")
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return Asked(self, body, out, thinks=not goes_on)

    def count(self, messages: Sequence[Message]) -> int | None:
        return None if messages else 0

    def length(self, text: str) -> int | None:
        return None

    def names(self) -> Sequence[str]:
        return list(self._known)

    def other(self, name: str) -> Server:
        if self._known and name not in self._known:
            near = difflib.get_close_matches(name, self._known, n=1) or [next(iter(self._known))]
            raise ValueError(f"{self.url} has no model {name}; it has {near[0]}" + ", ..." * (len(self._known) > 1))
        return Server(self.url, name, self._key)

    def close(self) -> None:
        pass

    def connect(self) -> tuple[http.client.HTTPConnection, str]:
        """A connection, through the proxy that the environment names, if it does; and how paths begin in it.

        Raises OSError.
        """
        scheme = "https" if self._secure else "http"
        proxy = None if urllib.request.proxy_bypass(self._host) else urllib.request.getproxies().get(scheme)
        at = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else None
        host, port = (at.hostname or "", at.port or 80) if at else (self._host, self._port)
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT)
        base = self._path
        if at and self._secure:
            connection.set_tunnel(self._host, self._port or 443)
        elif at:
            base = f"http://{urllib.parse.urlsplit(self.url).netloc}{base}"
        connection.connect()
        return connection, base

    @property
    def headers(self) -> dict[str, str]:
        key = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        return {"Content-Type": "application/json", "Accept": "text/event-stream, application/json", **key}


class Exchange:
    """One request and its response. `close` ends it from any thread, whatever it waits for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._closed = False
        self._socket: socket.socket | None = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in it
                self._socket.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def ask(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        """Raises ServerError if it cannot be reached."""
        server = self._server
        try:
            connection, base = server.connect()
            with self._lock:
                self._socket = connection.sock
                if self._closed:
                    connection.close()
                    raise ServerError("stopped")
            connection.sock.settimeout(SILENCE)
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, base + path, data, server.headers)
            return connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise ServerError(f"{server.url} has no certificate to be trusted: {error.verify_message}") from None
        except TimeoutError:
            raise ServerError(f"{server.url} did not answer in time; is the server running there?") from None
        except (OSError, http.client.HTTPException) as error:
            cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ServerError(f"{server.url} cannot be reached ({cause}); is the server running there?") from None

    def read(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of a response; None if it is none."""
        response = self.ask(method, path, body)
        try:
            return response.status, json_in(response.read(LINE))
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{self._server.url} broke off: {error}") from None


class Asked:
    """An answer of a server, read on a thread of its own."""

    def __init__(self, server: Server, body: dict[str, Any], out: Out, thinks: bool) -> None:
        self._server, self._body, self._out = server, body, out
        self._splitter = Splitter(thinks=thinks)
        self._exchange = Exchange(server)
        self._reason = "cancelled"
        self._error: str | None = None
        self._usage: tuple[int | None, int | None] = None, None
        threading.Thread(target=self._work, name="answer", daemon=True).start()

    def close(self) -> None:
        self._exchange.close()

    def outcome(self) -> Outcome:
        return Outcome(self._reason, *self._usage, self._error)

    def _work(self) -> None:
        try:
            self._read()
        except Exception as error:
            if not self._exchange.closed:
                self._reason = "error"
                known = isinstance(error, ServerError)
                self._error = str(error) if known else f"{self._server.url} broke off: {error or type(error).__name__}"
        finally:
            for piece in self._splitter.finish():
                self._out(piece)
            self._exchange.close()
            self._out(Piece(Kind.END))

    def _read(self) -> None:
        response = self._exchange.ask("POST", "/chat/completions", self._body)
        if response.status != 200:
            raise ServerError(said(self._server, response.status, json_in(response.read(LINE))))
        finish: str | None = None
        for event in events(response, self._server.url):
            if "error" in event:
                raise ServerError(f"{self._server.url} failed: {message_in(event) or 'it does not say why'}")
            self._count(event.get("usage"))
            choices = event.get("choices")
            choice = choices[0] if isinstance(choices, list) and choices else None
            if not isinstance(choice, dict):
                continue
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or choice.get("message")  # the latter where it does not stream
            if isinstance(delta, dict):
                self._take(delta)
        if finish is None:
            raise ServerError(f"{self._server.url} broke off before the answer was finished")
        self._reason = "length" if finish == "length" else "stop"

    def _take(self, delta: dict[str, Any]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str):
            self._out(Piece(Kind.THOUGHT, thought))
        if isinstance(content := delta.get("content"), str):
            for piece in self._splitter.feed(content):
                self._out(piece)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            prompt, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if type(prompt) is int and type(written) is int:
                self._usage = prompt + written, written


def events(response: http.client.HTTPResponse, url: str) -> Iterator[dict[str, Any]]:
    """The objects that a response streams, or the only one, where it does not stream. Raises ServerError."""
    if "json" in (response.getheader("Content-Type") or ""):
        yield parsed(response.read(ANSWER), url)
        return
    read = 0
    while line := response.readline(LINE + 1):
        read += len(line)
        if len(line) > LINE or read > 64 * ANSWER:
            raise ServerError(f"{url} sends more than an answer may have")
        name, _, data = line.strip().partition(b":")
        if name != b"data":
            continue
        if data.strip() == b"[DONE]":
            return
        yield parsed(data, url)


def json_in(data: bytes) -> Any:
    """The value in these bytes; None if they are no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def parsed(data: bytes, url: str) -> dict[str, Any]:
    value = json_in(data)
    if not isinstance(value, dict):
        raise ServerError(f"{url} does not speak as an OpenAI-style server: it sends {data[:60]!r}")
    return value


def said(server: Server, status: int, data: Any) -> str:
    """A sentence of a status other than 200 and the JSON that came with it."""
    words = message_in(data)
    because = f": {words}" if words else ""
    if status in (401, 403):
        return f"{server.url} refuses the key ({status}){because}; set OPENAI_API_KEY, or give --api-key"
    if status == 404:
        return f"{server.url} knows no such address or model (404){because}; most addresses end in /v1"
    if status == 429:
        return f"{server.url} has too much to do (429){because}; try again later"
    if 300 <= status < 400:
        return f"{server.url} points to another address ({status}); give that one to --url"
    return f"{server.url} {'refuses' if status < 500 else 'failed'} ({status}){because}"


def message_in(data: Any) -> str | None:
    """What a server says of an error, not too long."""
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and name in data:
            data = data[name]
    return " ".join(data.split())[:500].rstrip(".") if isinstance(data, str) else None


def context_of(model: dict[str, Any]) -> int | None:
    """The context that a server says a model has: vLLM's name for it, others', llama-server's."""
    meta = model.get("meta")
    for value in (
        model.get("max_model_len"),
        model.get("context_length"),
        meta.get("n_ctx") if isinstance(meta, dict) else None,
    ):
        if type(value) is int and value > 0:
            return value
    return None


def key_from(given: str | None, url: str) -> str | None:
    """The key to send: the one given, or OPENAI_API_KEY, which goes to nobody unencrypted but to this machine."""
    if given is not None:
        return given
    parts = urllib.parse.urlsplit(url)
    return os.environ.get("OPENAI_API_KEY") if parts.scheme == "https" or loopback(parts.hostname or "") else None


def loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
