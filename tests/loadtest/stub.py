"""A server that speaks the HTTP contract and takes exactly as long as it is told to: the load tester's
yardstick.

It runs on a thread of its own, on a port of its own choosing. Every request's latency comes from a
`Script`, and what the server itself saw (how many requests, how many at once) can be asked afterwards.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.loadtest.scripts import Script, constant

Scope = dict[str, Any]


@dataclass
class Stub:
    """The ASGI application. `slots` bounds how many requests are worked on at once; the others queue."""

    script: Script = field(default_factory=lambda: constant(0.0))
    slots: int = 10_000
    queue_limit: int = 10_000
    fail_with: int | None = None
    api_key: str | None = None
    halt_at: int | None = None  # every request halts after this many steps at most
    answers: Callable[[dict[str, Any]], Any] = lambda _input: True
    task: str = "graph"
    served: int = 0
    waiting: int = 0
    held_ms: list[float] = field(
        default_factory=list
    )  # how long each answer really took, for sleeps oversleep
    asked: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cut_streams: bool = False
    steps: int = 0  # taken so far, as its metrics tell
    at_once: int = 0
    most_at_once: int = 0
    left: threading.Event = field(default_factory=threading.Event)  # a client went away unanswered
    _awaited: dict[int, threading.Event] = field(default_factory=dict)
    _epoch: float | None = None
    _semaphore: asyncio.Semaphore | None = None

    def reached(self, served: int) -> threading.Event:
        """Set once so many requests have been answered."""
        return self._awaited.setdefault(served, threading.Event())

    def restart(self) -> None:
        """Forgets what was served; the script's time begins with the next request."""
        self._epoch, self.served, self.most_at_once = None, 0, 0
        self.held_ms.clear()
        self.asked.clear()
        self.bodies.clear()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path, method = scope["path"], scope["method"]
        keys = dict(scope["headers"])
        if self.api_key and keys.get(b"authorization") != f"Bearer {self.api_key}".encode():
            await reply(send, 401, error("unauthorized", "this server wants an API key"))
        elif path == "/metrics":
            text = f'fathom_steps_total{{model="stub"}} {self.steps}\nfathom_running{{model="stub"}} 1\n'
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": text.encode()})
        elif method == "GET":
            await self._describe(path, send)
        elif path.endswith("/infer"):
            await self._watched(json.loads(body), receive, send, v2=path.startswith("/v2"))
        else:
            await reply(send, 404, error("not_found", "there is nothing here"))

    async def _describe(self, path: str, send: Any) -> None:
        model = {
            "name": "stub",
            "version": "3",
            "codec": {"name": self.task},
            "task": self.task,
            "steps": {"default": 16, "limit": 64},
            "files": {"step.onnx": {"sha256": "0" * 64, "bytes": 1}},
        }
        pages: dict[str, Any] = {
            "/health/ready": {"status": "ready"},
            "/version": {"name": "stub", "version": "0.0.1"},
            "/v1/models": {"models": [model]},
            "/v1/models/stub": model,
            "/v2": {"name": "stub", "version": "0.0.1"},
            "/v2/models/stub": {
                "name": "stub",
                "versions": ["3"],
                "inputs": [{"name": "tokens", "datatype": "INT32", "shape": [-1, 4]}],
            },
        }
        if path in pages:
            await reply(send, 200, pages[path])
        else:
            await reply(send, 404, error("unknown_model", f"no such page: {path}"))

    async def _watched(self, request: dict[str, Any], receive: Any, send: Any, v2: bool) -> None:
        """Answers, unless the client goes away."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        answer = asyncio.create_task(self._infer(request, send, v2))
        gone = asyncio.create_task(receive())
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        self.at_once -= 1
        if not answer.done():
            answer.cancel()
            self.left.set()
        else:
            await answer
        gone.cancel()

    async def _infer(self, request: dict[str, Any], send: Any, v2: bool) -> None:
        arrived = time.monotonic()
        if self._epoch is None:
            self._epoch = arrived
        self.bodies.append(request)
        asked = int(request["parameters"]["max_steps"] if v2 else request["max_steps"])
        self.asked.append(asked)
        if self.fail_with is not None:
            await reply(send, self.fail_with, error("scripted", "this failure was asked for"))
            return
        if self.waiting >= self.queue_limit:
            await reply(send, 429, error("overloaded", "the queue is full"))
            return
        steps = min(asked, self.halt_at or asked)
        if self._semaphore is None:
            self._semaphore = asyncio.Semaphore(self.slots)
        self.waiting += 1
        async with self._semaphore:
            self.waiting -= 1
            began = time.monotonic()
            seconds = self.script(steps, began - self._epoch)
            if request.get("stream"):
                await self._stream(request, send, steps, seconds, arrived)
                return
            await asyncio.sleep(seconds)
        self.served += 1
        self.steps += steps
        if self.served in self._awaited:
            self._awaited[self.served].set()
        if v2:
            outputs = [
                {"name": "logits", "shape": [1, 2], "datatype": "FP32", "data": [0.1, 0.9]},
                {"name": "steps", "shape": [1], "datatype": "INT32", "data": [steps]},
                {"name": "halt_reason", "shape": [1], "datatype": "BYTES", "data": ["budget"]},
            ]
            await reply(send, 200, {"model_name": "stub", "outputs": outputs})
        else:
            await reply(send, 200, self._answer(request, steps, arrived, began))

    async def _stream(self, request: Any, send: Any, steps: int, seconds: float, arrived: float) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        began = time.monotonic()
        for step in range(1, steps + 1):
            await asyncio.sleep(max(0.0, began + seconds * step / steps - time.monotonic()))
            event = f"event: step\ndata: {json.dumps({'index': 0, 'step': step})}\n\n".encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if not self.cut_streams:
            answer = json.dumps(self._answer(request, steps, arrived, began))
            await send({"type": "http.response.body", "body": f"event: done\ndata: {answer}\n\n".encode()})
        else:
            await send({"type": "http.response.body", "body": b""})

    def _answer(self, request: dict[str, Any], steps: int, arrived: float, began: float) -> dict[str, Any]:
        now = time.monotonic()
        self.held_ms.append((now - arrived) * 1e3)
        halted = steps < request["max_steps"]
        return {
            "id": "req_1",
            "model": "stub",
            "version": "3",
            "results": [
                {
                    "answer": self.answers(request["input"]),
                    "steps": steps,
                    "max_steps": request["max_steps"],
                    "halt_reason": "halted" if halted else "budget",
                }
            ],
            "timings_ms": {
                "queue": (began - arrived) * 1e3,
                "compute": (now - began) * 1e3,
                "total": (now - arrived) * 1e3,
            },
        }


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "field": None}}


async def reply(send: Any, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """uvicorn, telling when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def serving(stub: Stub) -> Iterator[str]:
    """The address of a running server for `stub`."""
    config = uvicorn.Config(
        stub, host="127.0.0.1", port=0, log_level="error", lifespan="off", http="h11", loop="asyncio"
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, name="stub server")
    thread.start()
    try:
        assert server.listening.wait(10), "the stub server starts within ten seconds"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
