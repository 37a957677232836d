"""Answers of servers of OpenAI's kind, good and bad."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from quickbrown.cli import main
from quickbrown.cli.chat import server as module
from quickbrown.cli.chat.conversation import Message
from quickbrown.cli.chat.server import Server, ServerError, key_from
from quickbrown.cli.chat.source import Kind, Outcome, Piece
from stand_in import StandIn, event, stand_in

QUESTION = [Message("user", "What?")]


@pytest.fixture
def there() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def loaded(there: StandIn, **settings: Any) -> Server:
    server = Server(there.url, **settings)
    server.load()
    return server


def answered(server: Server, goes_on: bool = False, messages: Any = QUESTION, **options: Any) -> Any:
    """What is thought and said, and how it ends."""
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    answer = server.answer(messages, options, goes_on, pieces.put)
    texts = {Kind.THOUGHT: "", Kind.SAID: ""}
    while (piece := pieces.get(timeout=20)).kind is not Kind.END:
        texts[piece.kind] += piece.text
    answer.close()
    return texts[Kind.THOUGHT], texts[Kind.SAID], answer.outcome()


def test_what_is_asked_and_answered(there: StandIn) -> None:
    there.scripts = [["It ", "is \U0001f98a."]]
    server = loaded(there, key="secret")
    assert (server.name, server.context, server.names()) == ("fox", 8192, ["fox", "dog"])
    messages = [Message("system", "S"), *QUESTION, Message("assistant", "\n\nA", "hm"), Message("user", "B")]
    options = {"max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["x"], "top_k": 3}
    assert answered(server, messages=messages, **options) == ("", "It is \U0001f98a.", Outcome("stop", 12, 2))
    assert there.asked == [
        {
            "model": "fox",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "What?"},
                {"role": "assistant", "content": "A"},
                {"role": "user", "content": "B"},
            ],
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 1,
            "stop": ["x"],
            "top_k": 3,
        }
    ]
    assert there.headers["Authorization"] == "Bearer secret"


def test_nothing_is_said_that_nobody_chose(there: StandIn) -> None:
    answered(loaded(there))
    assert there.asked[0].keys() == {"model", "stream", "stream_options", "messages"}
    assert "Authorization" not in there.headers


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_apart(there: StandIn, name: str) -> None:
    there.scripts = [[event({"role": "assistant", "content": None}), event({name: "h"}), event({name: "m"}), "yes"]]
    assert answered(loaded(there))[:2] == ("hm", "yes")


def test_thoughts_between_marks(there: StandIn) -> None:
    there.scripts = [["<thi", "nk>hm</", "think>yes"]]
    assert answered(loaded(there))[:2] == ("hm", "yes")


def test_length(there: StandIn) -> None:
    there.scripts = [[b"data:" + json.dumps(event({"content": "a"}, "length")).encode() + b"\r\n\r\ndata: [DONE]\n\n"]]
    assert answered(loaded(there)) == ("", "a", Outcome("length"))


def test_going_on(there: StandIn) -> None:
    server = loaded(there)
    messages = [*QUESTION, Message("assistant", "1. The")]
    there.scripts = [["<think> fox"]]
    assert answered(server, goes_on=True, messages=messages)[:2] == ("", "<think> fox")
    assert there.asked[0]["messages"][-1] == {"role": "assistant", "content": "1. The"}
    assert there.asked[0]["continue_final_message"] is True
    assert there.asked[0]["add_generation_prompt"] is False
    with pytest.raises(ValueError, match="go on with a thought"):
        answered(server, goes_on=True, messages=[*QUESTION, Message("assistant", "", "hm")])


def test_an_answer_that_is_not_streamed(there: StandIn) -> None:
    there.kind = "application/json"
    body = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    there.scripts = [[json.dumps(body).encode()]]
    assert answered(loaded(there)) == ("", "yes", Outcome("stop"))


@pytest.mark.parametrize(
    ("script", "said", "sentence"),
    [
        ([b'data: {"choices"\n\n'], "", "does not speak as an OpenAI-style server: it sends b' {"),
        ([b"data: " + b"[" * 100_000 + b"\n"], "", "does not speak as an OpenAI-style server"),
        ([b"data: 5\n"], "", "does not speak"),
        ([b"data: " + b"x" * (1 << 20) + b"\n"], "", "sends more than an answer may have"),
        ([b"data: " + json.dumps(event({"content": "a"})).encode() + b"\n\n"], "a", "broke off before"),
        ([b"<html>"], "", "broke off before"),
        (["a", {"error": {"message": "out of  memory."}}], "a", "failed: out of memory"),
        (["a", {"error": 5}], "a", "failed: it does not say why"),
    ],
)
def test_bad_streams(there: StandIn, script: Any, said: str, sentence: str) -> None:
    there.scripts = [script]
    _, text, outcome = answered(loaded(there))
    assert text == said
    assert outcome.reason == "error"
    assert sentence in outcome.error
    assert there.url in outcome.error


def test_odd_fields_are_passed_over(there: StandIn) -> None:
    odd: list[Any] = [{}, {"choices": None}, {"choices": [5]}, {"choices": [{}]}, {"usage": {"prompt_tokens": "x"}}]
    odd += [event({"content": 5}), event({"reasoning": []}), {"choices": [{"delta": 5}]}, "yes"]
    there.scripts = [odd]
    assert answered(loaded(there))[:2] == ("", "yes")


@pytest.mark.parametrize(
    ("status", "data", "sentence"),
    [
        (400, {"error": {"message": "too long: 9000 > 8192"}}, "refuses (400): too long: 9000 > 8192"),
        (400, {"message": "no"}, "refuses (400): no"),
        (400, {"detail": [{"msg": "x"}]}, "refuses (400)"),
        (401, {"error": "bad key"}, "refuses the key (401): bad key; set OPENAI_API_KEY, or give --api-key"),
        (404, b"Not found", "knows no such address or model (404); most addresses end in /v1"),
        (429, {}, "has too much to do (429); try again later"),
        (301, {}, "points to another address (301); give that one to --url"),
        (500, b"\xff", "failed (500)"),
    ],
)
def test_refusals(there: StandIn, status: int, data: Any, sentence: str) -> None:
    server = loaded(there)
    there.refusal = status, data
    thought, said, outcome = answered(server)
    assert (thought, said) == ("", "")
    assert outcome == Outcome("error", error=f"{there.url} {sentence}")


def test_stopping_tells_the_server(there: StandIn) -> None:
    gate = threading.Event()
    there.scripts = [["a", gate, "b"]]
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    answer = loaded(there).answer(QUESTION, {}, False, pieces.put)
    assert pieces.get(timeout=20) == Piece(Kind.SAID, "a")
    answer.close()
    assert answer.outcome() == Outcome("cancelled")
    assert there.gone.wait(20)
    assert pieces.get(timeout=20).kind is Kind.END


def test_models(there: StandIn) -> None:
    server = loaded(there, name="dog")
    assert (server.name, server.context) == ("dog", None)
    other = server.other("fox")
    assert other.name == "fox"
    with pytest.raises(ValueError, match=r"has no model fux; it has fox"):
        server.other("fux")
    there.models = 404, {}
    assert loaded(there, name="cow").name == "cow"
    with pytest.raises(ServerError, match=r"lists no models \(status 404\); name one with --model"):
        loaded(there)
    there.models = 200, {"data": [{"id": "a", "meta": {"n_ctx": 512}}, {"id": 5}, "b"]}
    assert loaded(there).context == 512
    there.models = 401, {"error": {"message": "no key"}}
    with pytest.raises(ServerError, match="refuses the key"):
        loaded(there, name="cow")


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match=r"cannot be reached \(Connection refused\); is the server running there"):
        Server(f"http://127.0.0.1:{port}/v1").load()


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.1)
    monkeypatch.setattr(module, "CONNECT", 0.1)  # which holds for the greeting of https
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ServerError, match="did not answer in time"):
            Server(url).load()
        with pytest.raises(ServerError, match="did not answer in time"):
            Server(url.replace("http", "https")).load()


def test_options_that_no_server_knows(there: StandIn) -> None:
    with pytest.raises(ValueError, match="cannot be told max_time; it can be told max_new_tokens, temperature"):
        loaded(there).check({"max_time": 1.0})
    with pytest.raises(ValueError, match="from 0 to"):
        loaded(there).check({"temperature": -1})


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x/v1", "http://", "http://x:y/v1", "http://me:pw@x/v1", ""])
def test_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="--url takes an address like"):
        Server(url)


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the environment for one server is not told unencrypted to another."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert key_from(None, "https://api.example/v1") == "secret"
    assert key_from(None, "http://127.0.0.1:80/v1") == key_from(None, "http://[::1]/v1") == "secret"
    assert key_from(None, "http://localhost/v1") == "secret"
    assert key_from(None, "http://api.example/v1") is None
    assert key_from(None, "http://localhost.example/v1") is None
    assert key_from("given", "http://api.example/v1") == "given"
    with pytest.raises(ValueError, match="has characters that no key has"):
        Server("http://x/v1", key="a\r\nb")


def test_through_a_proxy(there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is asked for the whole address; the stand-in is one that answers itself."""
    monkeypatch.setenv("http_proxy", there.url.removesuffix("/v1"))
    server = Server("http://fox.example:81/v1/")
    server.load()
    assert answered(server)[1] == "yes"
    assert there.headers["Host"] == "fox.example:81"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--url", "nowhere"], "--url takes an address"),
        (["--url", "http://x/v1", "--threads", "2"], "--threads is for a model that is loaded here"),
        (["--api-key", "k"], "--api-key is for a server; name it with --url"),
    ],
)
def test_what_does_not_go_together(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["chat", *argv]) == 1
    assert capsys.readouterr().err.startswith(f"qb: {sentence}")
