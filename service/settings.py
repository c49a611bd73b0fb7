"""Every setting of the service: a flag of `fathom serve`, a variable FATHOM_<NAME>, a line in the docs.

The fields below are the only definition; `fathom serve` makes its flags from them, and tests hold
docs/settings.md against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service.errors import StartupError
from service.setting_types import (
    Buckets,
    Count,
    CountOrAny,
    File,
    Folder,
    Hosts,
    Keys,
    Large,
    Milliseconds,
    Names,
    Origins,
    Places,
    Rate,
    Seconds,
    SecondsOrNone,
    Share,
    Shown,
)

PREFIX = "FATHOM_"


class Settings(BaseSettings):
    """How one service runs. Given values win over the environment, the environment over defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: Annotated[str, Shown("ADDRESS")] = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface."
    )
    port: Annotated[int, Field(ge=0, le=65535), Shown("PORT")] = Field(
        8000, description="Port to listen on; 0 takes any free one."
    )
    repository: Folder = Field(
        Path("bundles"),
        description="Folder of bundles, <model>/<version>/manifest.json. Where it is not set and there is no "
        "folder of this name, the bundles that come with Fathom are served.",
    )
    poll_seconds: SecondsOrNone = Field(
        0, description="Load what has changed in the repository this often; 0: only when told to."
    )
    remote_bundles: Places = Field(
        (),
        description="Bundles from elsewhere, comma-separated, such as s3://bucket/graph/1#sha256=HASH with "
        "the hash of the manifest (extra remote).",
    )
    bundle_cache: Folder = Field(
        Path("~/.cache/fathom"), description="Folder where bundles from elsewhere are kept."
    )
    max_bundle_bytes: Large = Field(2**32, description="Size of a bundle from elsewhere.")
    codecs: Names = Field(
        (),
        description="Codecs of other installed distributions that bundles may use, comma-separated.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where models run. cuda never falls back to the CPU; auto takes cuda where it can.",
    )
    backend: Literal["auto", "onnx", "torchscript", "torch", "inductor", "fused"] = Field(
        "auto",
        description="What computes a bundle's steps. auto prefers ONNX on a CPU and TorchScript on a GPU. On "
        "a GPU only: torch, the network built from its weights; inductor, the same compiled at the start; "
        "fused, one kernel for several steps, for bundles whose network it computes.",
    )
    kernels: Folder = Field(
        Path("~/.cache/fathom/kernels"),
        description="Folder of kernels for backend fused (python -m service.runners.fused.compile).",
    )
    precision: Literal["ieee", "tf32", "bf16"] = Field(
        "ieee",
        description="How a GPU multiplies matrices; all else is IEEE float32. What tf32 or bf16 change is "
        "measured at the start on a model's example and shown by /v1/models/NAME.",
    )
    deterministic: bool = Field(
        False,
        description="On a GPU, a row's numbers do not depend on who is beside it, bit for bit: every step "
        "then computes all slots.",
    )
    cpu_threads: Annotated[int, Field(ge=0, le=1024), Shown("N")] = Field(
        0,
        description="Threads that compute steps on a CPU, over all models; 0: as many as the process may use "
        "cores, of the machine or of its container's quota.",
    )
    slots: Count = Field(64, description="Problems that think at the same time, per model.")
    queue_seconds: Seconds = Field(
        10.0,
        description="How long a request may have to wait for others, in estimated seconds of compute, with "
        "problems as deep as those with the same criterion were of late; past that, it gets 429 with "
        "Retry-After.",
    )
    quantum_ms: Milliseconds = Field(
        20.0,
        description="Milliseconds of compute that a problem may be ahead of one that waits before it yields "
        "its slot, to go on later.",
    )
    stall_seconds: Seconds = Field(
        30.0, description="Not ready when there is work but no step has finished for this long."
    )
    drain_seconds: SecondsOrNone = Field(
        30.0, description="How long running requests may go on after SIGTERM."
    )
    max_problems: Count = Field(256, description="Problems per request.")
    max_body_bytes: Large = Field(2**20, description="Size of a request's body; larger ones get 413.")
    max_pending_bytes: Large = Field(
        2**26,
        description="Bytes of bodies that are held at the same time; past that, large ones get 429.",
    )
    max_connections: Count = Field(1024, description="Open connections; past that, new ones get 503.")
    max_line_bytes: Large = Field(8192, description="Size of a request's target; longer ones get 414.")
    max_header_bytes: Large = Field(32_768, description="Size of a request's headers; larger ones get 431.")
    max_headers: Count = Field(100, description="Headers per request; with more, it gets 431.")
    head_seconds: Seconds = Field(
        10.0, description="How long a request's head may take to arrive; then the client gets 408."
    )
    body_seconds: Seconds = Field(
        30.0, description="How long a request's body may take to arrive; then the client gets 408."
    )
    keep_alive_seconds: Seconds = Field(
        5.0, description="How long a connection may stay open without a request."
    )
    send_seconds: Seconds = Field(
        60.0, description="A client that takes in nothing of its answer for this long is cut off."
    )
    max_nodes: Count = Field(
        256,
        description="Nodes per graph, people per family, characters per expression and its two outer "
        "brackets; a bundle may allow fewer.",
    )
    max_edges: Count = Field(4096, description="Edges per graph, facts per family.")
    max_event_bytes: Large = Field(
        2**26,
        description="Bytes of steps held for one request: a trace that could be larger is refused, a stream "
        "that is not read in time drops its oldest steps.",
    )
    max_held_bytes: Large = Field(
        2**28,
        description="The same for all requests together; past that, traces get 429 and streams drop steps.",
    )
    keep_seconds: Seconds = Field(
        600.0, description="How long a thought may be kept for continue_from; requests say how long."
    )
    max_kept_bytes: Large = Field(
        2**28,
        description="Bytes of thoughts that are kept, over all models; past that, the oldest of the key that "
        "holds most go.",
    )
    ping_seconds: Seconds = Field(
        15.0, description="An event stream that is silent for this long gets a comment."
    )
    api_keys: Keys = Field(
        (),
        description="Keys, comma-separated; /v1 wants one of them (Authorization: Bearer) if there are any.",
    )
    admin_keys: Keys = Field(
        (),
        description="Keys for administration, comma-separated; without one, loading and unloading is closed.",
    )
    keys_file: File = Field(
        "",
        description="File of hashed keys, a line for each as `fathom key NAME` prints it; with one, /v1 "
        "wants a key. It is read again within a second of a change.",
    )
    steps_per_second: Rate = Field(
        0,
        description="Steps per second that a key may take, and all callers without one together; 0: any. A "
        "line of keys_file may say otherwise, as for the next two and for max_problems, max_body_bytes and "
        "queue_seconds.",
    )
    requests_per_second: Rate = Field(0, description="Requests per second that a key may send; 0: any.")
    max_streams: CountOrAny = Field(
        0, description="Streams that a key may have open at the same time; 0: any."
    )
    page: Literal["on", "off"] = Field(
        "on", description="The page at / that shows models thinking; off: nothing is there. /docs stays."
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may call this server from a browser, comma-separated, such as "
        "https://app.example; * for all.",
    )
    allowed_hosts: Hosts = Field(
        (),
        description="Names by which this server may be called, comma-separated; *.example.com for all under "
        "one, * for all. Empty: loopback's names where it listens on loopback, otherwise all.",
    )
    traces: Literal["auto", "on", "off"] = Field(
        "auto",
        description="OpenTelemetry traces (extra otel), set up by the OTEL_ variables; auto: where one of "
        "them names an exporter.",
    )
    capture_file: File = Field(
        "", description="Write a sample of the requests to this file, for `fathom loadtest --problems`."
    )
    capture_share: Share = Field(1.0, description="Share of the requests to capture, over 0 to 1.")
    capture_bytes: Large = Field(
        2**26, description="Size of the captured requests; the older half goes when there is no room."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged to stderr."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines for people, or a JSON object per line for programs."
    )
    access_log: bool = Field(False, description="Log a line per request.")
    depth_buckets: Buckets = Field(
        (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
        description="Bounds of fathom_request_depth in steps, comma-separated.",
    )
    queue_buckets: Buckets = Field(
        (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        description="Bounds of fathom_queue_seconds, comma-separated.",
    )
    step_buckets: Buckets = Field(
        (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
        description="Bounds of fathom_step_seconds, comma-separated.",
    )
    request_buckets: Buckets = Field(
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        description="Bounds of fathom_request_seconds, comma-separated.",
    )


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Settings from the given values and the environment. Raises StartupError that names the setting."""
    try:
        return Settings(**given)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        reason = fault["msg"].removeprefix("Value error, ")
        raise StartupError(f"{name} ({flag_of(name)}, {variable_of(name)}): {reason}") from None
    except SettingsError as error:
        raise StartupError(f"settings: {error}") from None


def flag_of(name: str) -> str:
    """The flag of a setting: max_nodes -> --max-nodes."""
    return f"--{name.replace('_', '-')}"


def variable_of(name: str) -> str:
    """The environment variable of a setting: max_nodes -> FATHOM_MAX_NODES."""
    return f"{PREFIX}{name.upper()}"
