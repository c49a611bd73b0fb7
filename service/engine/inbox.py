"""Commands on their way from the event loop to an engine's thread, in one list behind a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from service.engine.messages import Submission


@dataclass
class Commands:
    """What the engine is told at once."""

    submissions: list[Submission] = field(default_factory=list)
    stops: list[Submission] = field(default_factory=list)
    cancellations: list[Submission] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.submissions or self.stops or self.cancellations)


class Inbox:
    """Filled on the event loop, emptied by the engine's thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """wake: called with every command for which the thread does not wait here: it may do so elsewhere."""
        self._wake = wake
        self._changed = threading.Condition()
        self._commands = Commands()
        self._awaited = False  # whether the thread waits for a command
        self.closing = False

    @property
    def submissions(self) -> tuple[Submission, ...]:
        """Those that the engine has not taken in yet."""
        return tuple(self._commands.submissions)

    def submit(self, submission: Submission) -> None:
        """Queue a submission."""
        with self._changed:
            self._commands.submissions.append(submission)
            self._tell()

    def stop(self, submission: Submission) -> None:
        """End a submission with its best answers."""
        with self._changed:
            self._commands.stops.append(submission)
            self._tell()

    def cancel(self, submission: Submission) -> None:
        """Drop a submission."""
        with self._changed:
            self._commands.cancellations.append(submission)
            self._tell()

    def close(self, left: Iterable[Submission]) -> None:
        """Drop what is left, and let the thread end."""
        with self._changed:
            self._commands.cancellations += left
            self.closing = True
            self._tell()

    def forget_submissions(self) -> None:
        """What is on its way to an engine that is gone goes with it."""
        with self._changed:
            self._commands.submissions.clear()

    def take(self, wait: bool) -> Commands | None:
        """All commands since the last time, by the thread. wait: until there is one; None: time to stop."""
        with self._changed:
            while wait and not self._commands:
                if self.closing:
                    return None
                self._awaited = True
                self._changed.wait()
                self._awaited = False
            commands, self._commands = self._commands, Commands()
            return commands

    def closes_within(self, seconds: float) -> bool:
        """Wait before another attempt; True when it is time to stop instead."""
        with self._changed:
            return self._changed.wait_for(lambda: self.closing, seconds)

    def _tell(self) -> None:
        self._changed.notify()
        if not self._awaited:
            self._wake()
