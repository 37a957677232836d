"""A source that gets ready on a thread of its own while a person types."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable

from quickbrown.cli.chat.source import Source


class NotLoaded(Exception):
    """A source that could not be loaded; the cause says why."""


class Loader:
    """`start` begins to load; `then` is called, on that thread, when it has ended."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._load, name="load")

    @classmethod
    def of(cls, source: Source) -> Loader:
        """Of a source that is loaded already."""
        loader = cls(source)
        loader._ended.set()
        return loader

    def start(self, then: Callable[[], None] = lambda: None) -> Loader:
        self._then = then
        self._thread.start()
        return self

    def _load(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # of `stop`, which may come late
            try:
                self.source.load()
            except BaseException as error:
                self.error = error
            self._ended.set()
            self._then()

    @property
    def ready(self) -> bool:
        return self._ended.is_set() and self.error is None

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it is loaded. Raises NotLoaded if it cannot be."""
        ended = self._ended.wait(seconds)
        if self.error is not None:
            raise NotLoaded from self.error
        return ended

    def stop(self) -> None:
        """End a loading that nobody waits for any more, as Ctrl-C would if it were done in the foreground."""
        if self._thread.ident is not None and not self._ended.is_set():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt)
            )
            self._thread.join()
