"""Requests written to a file as they come, for a load test to send again: a share of them, and no secrets."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Full, Queue
from typing import IO, Any

from service.engine.served_model import ServedModel
from service.errors import StartupError
from service.http.v1.schemas import InferRequest
from service.settings import Settings

log = logging.getLogger("fathom")
MOST_WAITING = 256  # requests that wait to be written; more are left out
MOST_WAITING_BYTES = 2**22  # of their bodies; what was read of them takes ten times as much
OLDER = ".1"  # is added to the name of the file with the older half

Captured = Mapping[str, Any]


def open_capture(settings: Settings) -> Capture | None:
    """The capture that the settings ask for; None where they ask for none.

    Raises StartupError where its file cannot be written.
    """
    if not settings.capture_file:
        return None
    return Capture(Path(settings.capture_file), settings.capture_share, settings.capture_bytes)


class Capture:
    """Writes JSON lines from a thread of its own, so that nobody waits for a disk.

    Once the file holds half of what it may, it becomes the older one and a new one begins.
    """

    def __init__(self, file: Path, share: float, most_bytes: int, draw: random.Random | None = None) -> None:
        """Raises StartupError where the file cannot be written."""
        self._file, self._share, self._half = file, share, most_bytes // 2
        self._draw = draw or random.Random()
        self.waiting: Queue[tuple[int, Captured] | None] = Queue(MOST_WAITING)
        self.waiting_bytes = 0
        self._lock = threading.Lock()
        self.left_out = 0  # requests that were drawn and not written
        self._out: IO[bytes] | None = None
        try:
            self._out = self._open()
        except OSError as error:
            raise StartupError(f"capture_file: {file}: {error.strerror or error}") from None
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def offer(self, asked: Captured, size: int) -> None:
        """Perhaps write a request down: its `input` and what goes with it, of about `size` bytes."""
        if asked["input"] is None or self._draw.random() >= self._share:
            return  # without an input it goes on from an earlier one, which is not kept here
        with self._lock:
            fits = self.waiting_bytes + size <= MOST_WAITING_BYTES
            self.waiting_bytes += size if fits else 0
        try:
            if fits:
                self.waiting.put_nowait((size, asked))
                return
        except Full:
            self._done(size)
        self.left_out += 1

    def close(self) -> None:
        """Write what waits, and end. Harmless when repeated."""
        if self._thread.is_alive():
            self.waiting.put(None)
            self._thread.join()
        if self.left_out:
            log.warning("capture_file: %d requests came too fast, and were left out", self.left_out)

    def _done(self, size: int) -> None:
        with self._lock:
            self.waiting_bytes -= size

    # --- the thread ---

    def _open(self) -> IO[bytes]:
        """For the owner's eyes only: what people ask is theirs."""
        return os.fdopen(os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")

    def _run(self) -> None:
        while (item := self.waiting.get()) is not None:
            size, asked = item
            if self._out is not None:
                try:
                    self._write(self._out, asked)
                except OSError as error:
                    log.error("capture_file: %s: %s; no more is captured", self._file, error.strerror)
                    self._shut()
            self._done(size)
        self._shut()

    def _write(self, out: IO[bytes], asked: Captured) -> None:
        for line in lines_of(asked):
            if len(line) > self._half:
                continue
            if out.tell() + len(line) > self._half:
                out.close()
                os.replace(self._file, self._file.with_name(self._file.name + OLDER))
                out = self._out = self._open()
            out.write(line)
        out.flush()

    def _shut(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None


def captured(request: InferRequest, served: ServedModel) -> Captured:
    """What a load test needs of a request: when, problems and terms; neither its id nor whose it was."""
    return {
        "at": round(time.time(), 4),
        "input": request.input,
        "model": served.bundle.manifest.name,
        "max_steps": request.max_steps or served.bundle.manifest.steps.default,
        "min_steps": request.min_steps,
        "halting": None if request.halting is None else request.halting.model_dump(exclude_none=True),
        "deadline_ms": request.deadline_ms,
    }


def lines_of(asked: Captured) -> list[bytes]:
    """A line for each problem of a request, as `fathom loadtest` reads them (`--replay`, `--problems`)."""
    terms = {name: value for name, value in asked.items() if name != "input" and value is not None}
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    return [json.dumps({"input": problem, **terms}).encode() + b"\n" for problem in inputs]
