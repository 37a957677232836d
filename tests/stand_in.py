"""A server of OpenAI's kind that says what a test tells it to, when it tells it to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"data": [{"id": "fox", "max_model_len": 8192}, {"id": "dog"}]}
Step = str | dict[str, Any] | bytes | threading.Event


def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


class StandIn:
    """At `url`. Answers are scripts, one a request: texts and events are sent as events, bytes as they are, and a
    threading.Event is waited for. `refusal` is what is answered instead: status and JSON.

    asked   the bodies of the requests;  `headers` those of the last one
    came    released once for each
    gone    set when the client breaks off an answer
    """

    def __init__(self) -> None:
        self.scripts: list[list[Step]] = []
        self.refusal: tuple[int, Any] | None = None
        self.models: tuple[int, Any] = (200, MODELS)
        self.kind = "text/event-stream"
        self.asked: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.came = threading.Semaphore(0)
        self.gone = threading.Event()
        self.usage: tuple[int, int] | None = (10, 2)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.headers = dict(self.headers)
                self.reply(*outer.models)

            def do_POST(self) -> None:
                outer.headers = dict(self.headers)
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if outer.refusal is not None:
                    return self.reply(*outer.refusal)
                script = outer.scripts.pop(0) if outer.scripts else ["yes"]
                outer.came.release()
                try:
                    self.stream(script)
                except OSError:
                    outer.gone.set()

            def reply(self, status: int, data: Any) -> None:
                body = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def stream(self, script: list[Step]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", outer.kind)
                self.end_headers()
                raw = any(isinstance(step, bytes) for step in script)
                for step in script:
                    if isinstance(step, threading.Event):
                        while not step.wait(0.05):
                            self.wfile.write(b": waiting\n")
                    elif isinstance(step, bytes):
                        self.wfile.write(step)
                    else:
                        self.send(event({"content": step}) if isinstance(step, str) else step)
                if not raw:
                    self.send(event({}, "stop"))
                    if outer.usage:
                        prompt, written = outer.usage
                        self.send({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": written}})
                    self.wfile.write(b"data: [DONE]\n\n")

            def send(self, data: Any) -> None:
                self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@contextlib.contextmanager
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        thread.join()
        server.server.server_close()
