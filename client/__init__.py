"""A Python client of a Fathom server: httpx and NumPy, and nothing of the other packages."""

from client.aio import AsyncClient, AsyncStream
from client.answers import Answer, Effect, Model, Result, Step, Timings, TraceStep, Usage, Votes
from client.blocking import Client, Stream
from client.errors import (
    ApiError,
    BrokenStream,
    ConnectionFailed,
    FathomError,
    Invalid,
    NotFound,
    Overloaded,
    Unauthorized,
    Unavailable,
)
from client.terms import Halting, Intervention, Latents, Samples, Terms

__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "AsyncStream",
    "BrokenStream",
    "Client",
    "ConnectionFailed",
    "Effect",
    "FathomError",
    "Halting",
    "Intervention",
    "Invalid",
    "Latents",
    "Model",
    "NotFound",
    "Overloaded",
    "Result",
    "Samples",
    "Step",
    "Stream",
    "Terms",
    "Timings",
    "TraceStep",
    "Unauthorized",
    "Unavailable",
    "Usage",
    "Votes",
]
