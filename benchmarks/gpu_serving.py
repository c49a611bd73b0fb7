"""The part of `benchmarks/gpu.py` that is about serving: engine, bits, waiting, and what a start takes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import torch
from gpu_steps import Extent, Facts, microseconds

from model.bundle import Bundle
from model.row import Row
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Submission, Trajectory
from service.engine.observer import Unobserved
from service.runners.computing import Numerics
from service.runners.device.bound import BOUND
from service.runners.device.built import BUILT, COMPILED
from service.runners.device.lane import WARM_UP, Lane
from service.runners.device.program import SCRIPTED
from service.runners.device.runner import DeviceRunner
from service.runners.runner import Carry


def engine(bundle: Bundle, device: str, row: Row, slots: int, extent: Extent) -> Facts:
    """Row-steps a second of the whole engine, lock-step and ahead, alone and beside a busy thread.

    idle: the share of the time in which the device waits, against steps that are only asked for.
    """
    facts: Facts = {}
    runner = DeviceRunner(bundle, device, slots)  # type: ignore[arg-type]
    rate(bundle, runner, row, slots, WARM_UP)
    most = _most(runner, row, slots, extent)
    for busy, interval in ((False, 5e-3), (True, 5e-3), (True, 1e-3), (True, 2e-4)):
        beside = f"a busy thread, switching every {interval * 1e3:g} ms" if busy else "nobody"
        rates: dict[bool, list[float]] = {False: [], True: []}
        with _beside(busy, interval):
            for ahead in [False, True] * extent.rounds:
                runner.ahead = ahead
                rates[ahead].append(rate(bundle, runner, row, slots, extent.steps))
        lock_step, two = median(rates[False]), median(rates[True])
        facts[f"beside {beside}"] = {
            "lock_step": round(lock_step),
            "ahead": round(two),
            "ratio": round(two / lock_step, 3),
            "idle": round(1 - max(two, lock_step) / most, 3),
        }
    runner.close()
    return facts


def rate(bundle: Bundle, runner: DeviceRunner, row: Row, slots: int, count: int) -> float:
    """Row-steps a second of the whole engine, for so many copies of a row that take as many steps."""
    served = Engine(bundle.manifest, runner, EngineLimits(slots), Unobserved())
    began = time.perf_counter()
    served.submit(Submission(tuple([Trajectory(row, count)] * slots), time.monotonic()))
    while not served.idle:
        served.step()
    return slots * count / (time.perf_counter() - began)


def _most(runner: DeviceRunner, row: Row, slots: int, extent: Extent) -> float:
    """Row-steps a second of the device by itself."""
    step = runner._tables.table(row.bucket)._program(slots, lean=False)
    with runner._lane.work():
        return slots / microseconds(runner._lane, step, extent) * 1e6


@contextmanager
def _beside(busy: bool, interval: float) -> Iterator[None]:
    """A thread that keeps Python busy, as an event loop under load does."""
    before, done = sys.getswitchinterval(), threading.Event()

    def work() -> None:
        while not done.is_set():
            sum(range(100))

    thread = threading.Thread(target=work, daemon=True)
    sys.setswitchinterval(interval)
    if busy:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if busy:
            thread.join()
        sys.setswitchinterval(before)


def programs(bundle: Bundle, device: str, row: Row, slots: int, extent: Extent) -> Facts:
    """Row-steps a second of the whole engine, a step ahead, and the seconds of a start, by backend."""
    facts: Facts = {}
    for program in (SCRIPTED, BUILT, BOUND, *((COMPILED,) if device == "cuda" else ())):
        began = time.perf_counter()
        runner = DeviceRunner(bundle, device, slots, ahead=True, program=program)  # type: ignore[arg-type]
        rate(bundle, runner, row, slots, WARM_UP)
        seconds = time.perf_counter() - began
        rates = [rate(bundle, runner, row, slots, extent.steps) for _ in range(extent.rounds)]
        facts[program.backend] = {"row_steps_per_second": round(median(rates)), "start": round(seconds, 1)}
        runner.close()
    return facts


def bits(bundle: Bundle, device: str, row: Row, slots: int) -> Facts:
    """In how many company and places a row's logits after 5 steps are the same to the bit."""
    facts: Facts = {}
    for deterministic in (False, True):
        numerics, said = Numerics(deterministic=deterministic), []
        runner = DeviceRunner(bundle, device, slots, numerics=numerics)  # type: ignore[arg-type]
        for rows in sorted({1, 2, 3, slots // 2, slots}):
            for slot in range(rows):
                runner.put(slot, Carry(row))
            for _ in range(5):
                runner.launch(range(rows), [])
                (landing,) = runner.land()
            said += [landing.logits[place] for place in sorted({0, rows - 1})]
            for slot in range(rows):
                runner.release(slot)
        runner.close()
        same = sum(np.array_equal(each, said[0]) for each in said)
        facts["deterministic" if deterministic else "as it comes"] = {
            "same": f"{same} of {len(said)}",
            "largest_difference": max(float(np.abs(each - said[0]).max()) for each in said),
        }
    return facts


def waits(lane: Lane, extent: Extent) -> Facts:
    """Microseconds from a small piece of work to its result on the host, by way of waiting."""
    with lane.work():
        there = torch.zeros(64, 16, device=lane.device)
        here = lane.host((64, 16), torch.float32)

        def asked() -> None:
            there.add_(1)
            here.copy_(there, non_blocking=True)

        def spinning() -> None:
            asked()
            mark = lane.mark()
            while not lane.passed(mark):
                pass

        def waiting() -> None:
            asked()
            lane.wait(lane.mark())

        def copied() -> None:
            there.add_(1).cpu()

        ways = {"query in a loop": spinning, "event.synchronize": waiting, ".cpu()": copied}
        return {name: microseconds(lane, way, extent) for name, way in ways.items()}


def start(bundle: Bundle, device: str, slots: int) -> Facts:
    """Seconds to open a model, all graphs captured, and what that takes of the device."""
    before = Lane(device).free_bytes()
    began = time.perf_counter()
    runner = DeviceRunner(bundle, device, slots)  # type: ignore[arg-type]
    facts: Facts = {"seconds": round(time.perf_counter() - began, 2)}
    if before is not None:
        facts["mib"] = round((before - (Lane(device).free_bytes() or 0)) / 2**20)
    runner.close()
    return facts
