"""Who wants to know what an engine does."""

from __future__ import annotations

from typing import Protocol

from model.halting import HaltReason


class Observer(Protocol):
    """Who wants to know what the engine does (metrics). Called from the engine's thread."""

    def stepped(self, rows: int, seconds: float, steps: int = 1) -> None:
        """A batch took so many steps of so many seconds each; `rows` of them in all."""

    def queued(self, seconds: float) -> None:
        """A problem found its first slot after so long."""

    def yielded(self) -> None:
        """A problem gave its slot to one that waited."""

    def finished(self, reason: HaltReason, steps: int) -> None:
        """A problem is done."""

    def load(self, running: int, waiting: int, slots: int) -> None:
        """How full the engine is, after every change."""

    def restarted(self) -> None:
        """The engine is built anew after a failure."""

    def dropped(self, steps: int) -> None:
        """So many steps went because a caller read too slowly. Called on the event loop."""


class Unobserved:
    """An observer for steps that are nobody's."""

    def stepped(self, rows: int, seconds: float, steps: int = 1) -> None: ...
    def queued(self, seconds: float) -> None: ...
    def yielded(self) -> None: ...
    def finished(self, reason: HaltReason, steps: int) -> None: ...
    def load(self, running: int, waiting: int, slots: int) -> None: ...
    def restarted(self) -> None: ...
    def dropped(self, steps: int) -> None: ...
