"""The server's own account while the load runs: its /metrics, read again and again."""

import contextlib
import importlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

SUMS = {  # counters and sums of the contract, by the name used here
    "steps": "fathom_steps_total",
    "batches": "fathom_step_seconds_count",
    "step_s": "fathom_step_seconds_sum",
    "queue_s": "fathom_queue_seconds_sum",
    "queued": "fathom_queue_seconds_count",
    "cpu_s": "process_cpu_seconds_total",
}
LEVELS = {
    "running": "fathom_running",
    "waiting": "fathom_waiting",
    "occupancy": "fathom_slot_occupancy",
    "memory": "process_resident_memory_bytes",
}
OF_PROCESS = ("cpu_s", "memory")  # these carry no model


@dataclass(frozen=True)
class Reading:
    """The server over the stretch that ends at `at_s` of the run's clock. None: it does not say, or did
    nothing.

    `row_step_ms` is compute per row and step: what batches took, over the rows in them.
    """

    at_s: float
    running: float | None = None
    waiting: float | None = None
    occupancy: float | None = None
    steps_per_s: float | None = None
    rows_per_batch: float | None = None
    row_step_ms: float | None = None
    queue_ms: float | None = None
    memory_mb: float | None = None
    cpu_share: float | None = None
    gpu_share: float | None = None
    gpu_memory_mb: float | None = None


class Scraper:
    """Reads `url`/metrics every `interval_s` from a thread of its own, until left.

    `readings` has what was read so far; a server without metrics leaves it empty.
    """

    def __init__(
        self, url: str, headers: dict[str, str], model: str, interval_s: float, epoch: float
    ) -> None:
        self.readings: list[Reading] = []
        self._model, self._interval_s, self._epoch = model.partition("@")[0], interval_s, epoch
        self._client = httpx.Client(base_url=url, headers=headers, timeout=2.0, trust_env=False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        self._gpu = Gpu() if urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") else None

    def __enter__(self) -> Self:
        if self._interval_s:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._interval_s:
            self._thread.join()
        self._client.close()

    def _run(self) -> None:
        before: tuple[float, dict[str, float]] | None = None
        while True:
            with contextlib.suppress(httpx.HTTPError):  # a busy server may be late; the next time will do
                answer = self._client.get("/metrics")
                if answer.status_code in (401, 403, 404):
                    return
                if answer.status_code == 200:
                    now = time.monotonic() - self._epoch
                    values = read_page(answer.text, self._model)
                    if before is not None:
                        gpu = self._gpu.read() if self._gpu else (None, None)
                        self.readings.append(reading(before, (now, values), gpu))
                    before = now, values
            if self._over.wait(self._interval_s):
                return


def read_page(text: str, model: str) -> dict[str, float]:
    """The values of SUMS and LEVELS on a page of metrics, of one model where they are by model."""
    wanted = {metric: name for name, metric in (SUMS | LEVELS).items()}
    found: dict[str, float] = {}
    for sample in _samples(text):
        name = wanted.get(sample[0])
        if name and (sample[1] == model or name in OF_PROCESS):
            found[name] = found.get(name, 0.0) + sample[2]
    return found


def _samples(text: str) -> Iterable[tuple[str, str | None, float]]:
    kept = "\n".join(line for line in text.splitlines() if "_bucket{" not in line)  # most lines, none wanted
    for family in text_string_to_metric_families(kept):
        for sample in family.samples:
            yield sample.name, sample.labels.get("model"), sample.value


def reading(
    before: tuple[float, dict[str, float]],
    after: tuple[float, dict[str, float]],
    gpu: tuple[float | None, float | None] = (None, None),
) -> Reading:
    """What happened between two pages."""
    seconds = after[0] - before[0]
    old, new = before[1], after[1]

    def grown(name: str) -> float | None:
        difference = new[name] - old[name] if name in new and name in old else None
        return None if difference is None or difference < 0 else difference  # below zero: begun anew

    def over(part: float | None, whole: float | None, scale: float = 1.0) -> float | None:
        return None if part is None or not whole else scale * part / whole

    memory = new.get("memory")
    return Reading(
        at_s=after[0],
        running=new.get("running"),
        waiting=new.get("waiting"),
        occupancy=new.get("occupancy"),
        steps_per_s=over(grown("steps"), seconds),
        rows_per_batch=over(grown("steps"), grown("batches")),
        row_step_ms=over(grown("step_s"), grown("steps"), 1e3),
        queue_ms=over(grown("queue_s"), grown("queued"), 1e3),
        memory_mb=None if memory is None else memory / 2**20,
        cpu_share=over(grown("cpu_s"), seconds),
        gpu_share=gpu[0],
        gpu_memory_mb=gpu[1],
    )


class Gpu:
    """The first GPU of this machine through NVML, where the package nvidia-ml-py and a GPU are there."""

    def __init__(self) -> None:
        self._read: Any = None
        try:
            pynvml = importlib.import_module("pynvml")  # optional, and without types

            pynvml.nvmlInit()
            self._read, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception:  # noqa: BLE001  no package, no driver, no GPU: then there is nothing to read
            self._read = None

    def read(self) -> tuple[float | None, float | None]:
        """Its share of busy time, and its memory in use in MB."""
        if self._read is None:
            return None, None
        used = self._read.nvmlDeviceGetMemoryInfo(self._handle).used / 2**20
        return self._read.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100, used
