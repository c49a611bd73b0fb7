"""The server under test: who it is, what it serves, and that it answers at all."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import httpx

from loadtest.drive.cases import Case, JsonObject
from loadtest.drive.dialects import BadResponse, Dialect, FathomV1, OpenInferenceV2, Response
from loadtest.errors import LoadTestError
from loadtest.plan import LoadPlan


@dataclass(frozen=True)
class Target:
    """A model on a server, as that server describes it; None where it does not say."""

    url: str
    model: str
    version: str | None
    task: str | None
    steps_limit: int | None
    bundle_sha256: str | None
    server: JsonObject
    datatypes: dict[str, str]


def headers(plan: LoadPlan) -> dict[str, str]:
    """The headers of every request."""
    sent = {"Content-Type": "application/json", "User-Agent": "fathom-loadtest", **plan.header}
    if plan.api_key:
        sent["Authorization"] = f"Bearer {plan.api_key}"
    return sent


def discover(plan: LoadPlan) -> Target:
    """Asks the server about itself and the model. Raises LoadTestError with one clear line when it cannot."""
    with _client(plan) as client:
        return _discover_v1(client, plan) if plan.protocol == "v1" else _discover_v2(client, plan)


def dialect(plan: LoadPlan, target: Target) -> Dialect:
    """How to speak to `target` under `plan`."""
    if plan.protocol == "v1":
        return FathomV1(target.model, plan.halting, plan.deadline_ms, plan.stream)
    return OpenInferenceV2(target.model, plan.halting, plan.deadline_ms, target.datatypes)


def try_once(plan: LoadPlan, target: Target, case: Case) -> Response:
    """One whole request at the smallest budget, so that a plan that cannot work ends before it starts.

    Raises LoadTestError with the server's own words.
    """
    whole = FathomV1(target.model, plan.halting, plan.deadline_ms, streams=False)
    speaker = whole if plan.protocol == "v1" else dialect(plan, target)
    depth = plan.drawn.depths[0] if plan.drawn else plan.depths[0]
    try:
        body = speaker.encode(case, depth)
    except (KeyError, ValueError, AttributeError) as error:
        raise LoadTestError(f'over v2 a problem is {{"tensors": {{"name": [[…]]}}}}: {error}') from error
    with _client(plan) as client:
        answer = _send(client, "POST", speaker.path, body)
    if answer.status_code != 200:
        raise LoadTestError(f"the server refuses the first request: {_words(answer)}")
    try:
        return speaker.decode(answer.content)
    except BadResponse as error:
        raise LoadTestError(f"{plan.url} does not answer as a Fathom server: {error}") from error


def _client(plan: LoadPlan) -> httpx.Client:
    # Proxies of the environment are not for a measurement: the load goes straight to the server, so this
    # does too.
    return httpx.Client(base_url=plan.url, headers=headers(plan), timeout=plan.timeout_s, trust_env=False)


def _send(client: httpx.Client, method: str, path: str, body: bytes | None = None) -> httpx.Response:
    try:
        return client.request(method, path, content=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LoadTestError(
            f"no server answers at {client.base_url}: {error or type(error).__name__}"
        ) from error


def _fetch(client: httpx.Client, path: str) -> Any:
    """The JSON at `path`; None when it is not there or not JSON. Raises LoadTestError when access is
    denied.
    """
    response = _send(client, "GET", path)
    if response.status_code in (401, 403):
        raise LoadTestError(f"{client.base_url} wants a key: give --api-key ({_words(response)})")
    if response.status_code != 200:
        return None
    try:
        return response.json()
    except ValueError:
        return None


def _words(response: httpx.Response) -> str:
    """An error response in one line: the contract's message where there is one."""
    try:
        error = response.json()["error"]
        words = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        words = response.text[:200]
    return " ".join(f"HTTP {response.status_code} {words}".split())


def _discover_v1(client: httpx.Client, plan: LoadPlan) -> Target:
    server = _fetch(client, "/version")
    listed = _fetch(client, "/v1/models")
    if listed is None:
        raise LoadTestError(f"{plan.url} has no /v1/models: not a Fathom server (or try --protocol v2)")
    served = _names(listed)
    model = plan.model
    if model is None:
        if len(served) != 1:
            raise LoadTestError(
                f"say which model with --model: {plan.url} serves {', '.join(served) or 'none'}"
            )
        model = served[0]
    manifest = _fetch(client, f"/v1/models/{model}")
    if not isinstance(manifest, dict):
        raise LoadTestError(f"{plan.url} serves no model {model!r}; it serves {', '.join(served) or 'none'}")
    codec = manifest.get("codec")
    task = codec.get("name") if isinstance(codec, dict) else codec
    steps = manifest.get("steps")
    limit = steps.get("limit") if isinstance(steps, dict) else None
    version = manifest.get("version")
    return Target(
        url=plan.url,
        model=model,
        version=None if version is None else str(version),
        task=task or manifest.get("task"),
        steps_limit=limit if isinstance(limit, int) else None,
        bundle_sha256=bundle_hash(manifest.get("files")),
        server=server if isinstance(server, dict) else {},
        datatypes={},
    )


def _discover_v2(client: httpx.Client, plan: LoadPlan) -> Target:
    if plan.model is None:
        raise LoadTestError("--protocol v2 has no list of models: give --model")
    metadata = _fetch(client, f"/v2/models/{plan.model}")
    if not isinstance(metadata, dict):
        raise LoadTestError(f"{plan.url} serves no model {plan.model!r} under /v2/models")
    server = _fetch(client, "/v2")
    versions = metadata.get("versions") or []
    inputs = metadata.get("inputs") or []
    return Target(
        url=plan.url,
        model=plan.model,
        version=str(versions[-1]) if versions else None,
        task=None,
        steps_limit=None,
        bundle_sha256=None,
        server=server if isinstance(server, dict) else {},
        datatypes={str(tensor["name"]): str(tensor["datatype"]) for tensor in inputs if "datatype" in tensor},
    )


def _names(listed: Any) -> list[str]:
    entries = (
        next((v for v in listed.values() if isinstance(v, list)), []) if isinstance(listed, dict) else listed
    )
    return [
        str(entry.get("name") or entry.get("id")) if isinstance(entry, dict) else str(entry)
        for entry in entries
    ]


def bundle_hash(files: Any) -> str | None:
    """One hash for a bundle: the sha256 of its files' sha256, sorted by name, one `name hash` a line; None
    without.
    """
    if not isinstance(files, dict) or not files:
        return None
    hashes = {
        name: entry.get("sha256") if isinstance(entry, dict) else entry for name, entry in files.items()
    }
    lines = "".join(f"{name} {json.dumps(hashes[name])}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()
