"""The thread that steps an engine, and the way in for all others."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

from quickbrown.engine.engine import Engine
from quickbrown.engine.sequence import Request
from quickbrown.types import Event

log = logging.getLogger(__name__)
T = TypeVar("T")


class Sink(Protocol):
    """Where the events of one request go, on the engine's thread: it must not wait for anybody."""

    def take(self, event: Event) -> None:
        """One event. An exception ends this request, and is handed to `fail`."""
        ...

    def fail(self, error: BaseException) -> None:
        """There will be no more events."""
        ...


class EngineThread:
    """Steps an engine whenever it has something to do. Any number of threads may use it at the same time.

    The thread starts with the first request, sleeps while there is nothing to write, and ends with `close`. Should it
    die, those who wait get an error, and the next request finds a new one.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._wake = threading.Condition()
        self._jobs: deque[tuple[Callable[[], None], Callable[[BaseException], None]]] = deque()
        self._sinks: dict[int, tuple[Sink, set[int]]] = {}  # and the samples that have not ended
        self._thread: threading.Thread | None = None
        self._closed = False
        self._owner = os.getpid()
        self._ids = itertools.count()

    def new_id(self) -> int:
        """A number for a request that no other has."""
        return next(self._ids)

    def submit(self, requests: Sequence[tuple[Request, Sink]]) -> None:
        """Take requests in, all or none. Raises as `Engine.validate`, and RuntimeError after `close`."""
        for request, _ in requests:
            self.engine.validate(request)

        def add() -> None:
            for request, sink in requests:
                self._sinks[request.id] = (sink, set(range(len(request.seeds))))
                self.engine.add(request)

        def lost(error: BaseException) -> None:
            for _, sink in requests:
                failing(sink, error)

        self._post(add, lost)

    def cancel(self, request_id: int, sample: int | None = None) -> None:
        """End a request, or one sample of it, before the next step; its event comes as any other.

        Takes no lock, so that a __del__ may call it anywhere; nobody needs to be woken, since who has something to end
        is not asleep.
        """

        def cancel() -> None:
            self.engine.cancel(request_id, sample)

        self._jobs.append((cancel, lambda error: None))

    def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, done on the engine's thread between two steps."""
        done: Future[T] = Future()

        def job() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        self._post(job, done.set_exception)
        return done.result()

    def close(self) -> None:
        """End every request with an error and the thread with them. Nothing can be submitted any more."""
        if self._owner != os.getpid():  # a forked copy has no thread
            return
        with self._wake:
            self._closed = True
            thread = self._thread
            self._wake.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _post(self, job: Callable[[], None], lost: Callable[[BaseException], None]) -> None:
        """Have a job done before the next step; `lost` is called if the thread ends first."""
        if self._owner != os.getpid():
            raise RuntimeError(
                "this model was loaded before the process forked; load it again in the child process, or start "
                "children with the 'spawn' method"
            )
        with self._wake:
            if self._closed:
                raise RuntimeError("this model was closed; load it again")
            self._jobs.append((job, lost))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="quickbrown engine", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        error: BaseException = RuntimeError("the model was closed while this text was being written")
        try:
            while self._wait():
                for event in self._step():
                    self._deliver(event)
        except BaseException as fatal:
            log.exception("the engine's thread died")
            error = fatal
        with self._wake:
            self._thread = None
            jobs, self._jobs = self._jobs, deque()
            sinks, self._sinks = self._sinks, {}
            self.engine.reset()
        for sink, _ in sinks.values():
            failing(sink, error)
        for _, lost in jobs:
            lost(error)

    def _wait(self) -> bool:
        """Sleep until there is something to do, and do all the jobs that have come. False after `close`."""
        with self._wake:
            while not self._jobs and self.engine.idle and not self._closed:
                self._wake.wait()
            if self._closed:
                return False
        while self._jobs:
            self._jobs[0][0]()
            del self._jobs[0]  # only now: should it fail, it is lost
        return True

    def _step(self) -> list[Event]:
        try:
            return self.engine.step()
        except Exception as error:
            log.exception("the engine failed; it starts anew")
            return self.engine.abort(error)

    def _deliver(self, event: Event) -> None:
        if event.request not in self._sinks:
            return
        sink, open_samples = self._sinks[event.request]
        if event.finish is not None:
            open_samples.discard(event.sample)
            if not open_samples:
                del self._sinks[event.request]
        try:
            sink.take(event)
        except Exception as error:
            log.debug("a sink failed", exc_info=True)
            self._sinks.pop(event.request, None)
            self.engine.cancel(event.request)
            failing(sink, error)


def failing(sink: Sink, error: BaseException) -> None:
    """Tell a sink, which may be what is broken."""
    try:
        sink.fail(error)
    except Exception:
        log.exception("a sink could not be told of %r", error)
