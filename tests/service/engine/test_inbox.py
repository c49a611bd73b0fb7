"""Commands reach the engine's thread wherever it waits."""

from __future__ import annotations

import threading

from service.engine.inbox import Commands, Inbox
from service.engine.messages import Submission


def submission() -> Submission:
    return Submission((), 0.0)


def test_a_thread_that_waits_for_a_command_is_not_called_elsewhere_and_one_that_computes_is() -> None:
    calls: list[str] = []
    inbox = Inbox(lambda: calls.append("called"))
    taken: list[Commands | None] = []
    thread = threading.Thread(target=lambda: taken.append(inbox.take(wait=True)))
    thread.start()
    while not inbox._awaited:
        threading.Event().wait(1e-3)
    first, second = submission(), submission()
    inbox.submit(first)
    thread.join(10)
    assert calls == []
    (commands,) = taken
    assert commands is not None
    assert commands.submissions == [first]
    inbox.submit(second)
    inbox.cancel(second)
    assert calls == ["called"] * 2
    commands = inbox.take(wait=False)
    assert commands is not None
    assert (commands.submissions, commands.cancellations) == ([second], [second])
