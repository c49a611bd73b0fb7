"""Who has had how much: the accounts by which keys, and the requests of one key, share an engine.

Fair queueing by virtual time (processor sharing, after Parekh and Gallager): an account's clock counts
the seconds of compute it has had, whoever is new starts at the clock of one who had exactly its share,
and whose clock is behind goes first. For their first quantum accounts have a head start: what is shorter
than that passes whatever is longer. A caller who sends much waits for himself, and nobody starves,
because the clock of the fair share goes on and the head start is bounded.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from service.engine.messages import Submission

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]
HEAD_START = 10  # quanta
LOOK_AGAIN = 0.5  # quanta of compute: before that, nobody who owed nothing comes to owe a slot worth taking
FIRST = 64  # accounts there is room for to begin with


class Accounts:
    """A growing table of accounts, a column per fact; numbers of closed ones are used again."""

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self.clock = np.zeros(FIRST)  # seconds of compute, from where a fair share stood at the opening
        self.mature = np.zeros(FIRST)  # where its clock has used up its first quantum
        self.held = np.zeros(FIRST, np.int64)  # slots
        self.waiting = np.zeros(FIRST, np.int64)  # problems without a slot
        self.arrival = np.zeros(FIRST, np.int64)  # order of opening
        self.key = np.zeros(FIRST, np.intp)  # of a submission: the number of its key's account
        self.members = np.zeros(FIRST, np.int64)  # of a key: its submissions
        self.share = np.zeros(FIRST)  # of a key: the clock of a submission that had exactly its share
        self._free = list(range(FIRST))  # a heap

    def open(self, share: float) -> int:
        """A new account at the clock of the fair share; returns its number."""
        if not self._free:
            size = len(self.clock)
            columns = [(name, kept) for name, kept in vars(self).items() if isinstance(kept, np.ndarray)]
            for name, column in columns:
                setattr(self, name, np.concatenate([column, np.zeros_like(column)]))
            self._free = list(range(size, 2 * size))
        number = heapq.heappop(self._free)
        self.clock[number], self.mature[number] = share, share + self._quantum
        self.members[number], self.share[number] = 0, 0.0
        return number

    def standing(self, numbers: Rows) -> NDArray[np.float64]:
        """Whose is smallest goes first."""
        clock = self.clock[numbers]
        return clock - HEAD_START * self._quantum * (clock < self.mature[numbers])

    def close(self, number: int) -> None:
        """Of one that holds nothing, and for which nothing waits."""
        heapq.heappush(self._free, number)


class Ledger:
    """An account for every submission in the engine, and one for every key that has any."""

    def __init__(self, slots: int, quantum: float) -> None:
        """quantum: seconds of compute by which an account may be ahead of another that waits."""
        self._slots = slots
        self._quantum = quantum
        self._share = 0.0  # the clock of a key that had exactly its share
        self._submissions, self._keys = Accounts(quantum), Accounts(quantum)
        self._numbers: dict[Submission, int] = {}
        self._key_numbers: dict[str, int] = {}
        self._by_number: dict[int, Submission] = {}
        self._opened = 0
        self._charged = 0.0  # seconds of compute, to all together
        self._settled_until = -1.0  # of those: nobody owes a slot to anybody before

    def enter(self, submission: Submission) -> None:
        """Open an account for a submission whose problems all wait."""
        self._settled_until = -1.0
        key = self._key_numbers.get(submission.key)
        if key is None:
            key = self._key_numbers[submission.key] = self._keys.open(self._share)
        number = self._submissions.open(float(self._keys.share[key]))
        self._numbers[submission] = number
        self._by_number[number] = submission
        self._opened += 1
        accounts = self._submissions
        accounts.key[number], accounts.arrival[number] = key, self._opened
        accounts.waiting[number] = len(submission.trajectories)
        self._keys.members[key] += 1

    def number(self, submission: Submission) -> int:
        """The account of a submission that has entered."""
        return self._numbers[submission]

    def sits(self, submission: Submission, slots: int = 1) -> None:
        """A problem of it has taken a slot; -1: has gone back to wait."""
        self._settled_until = -1.0
        number = self._numbers[submission]
        self._submissions.waiting[number] -= slots
        self._hold(number, slots)

    def leaves(self, submission: Submission, seated: bool) -> None:
        """A problem of it is over, in a slot or while it waited; the account closes with the last."""
        self._settled_until = -1.0
        number = self._numbers[submission]
        accounts = self._submissions
        if seated:
            self._hold(number, -1)
        else:
            accounts.waiting[number] -= 1
        if accounts.held[number] or accounts.waiting[number]:
            return
        key = int(accounts.key[number])
        accounts.close(number)
        del self._numbers[submission], self._by_number[number]
        self._keys.members[key] -= 1
        if not self._keys.members[key]:
            self._keys.close(key)
            del self._key_numbers[submission.key]

    def charge(self, numbers: Rows, seconds: float) -> None:
        """The accounts, one per row of a batch and step, have each used so much."""
        accounts, keys = self._submissions, self._keys
        self._share += seconds * len(numbers) / len(self._key_numbers)
        self._charged += seconds * len(numbers)
        of = accounts.key[numbers]
        np.add.at(accounts.clock, numbers, seconds)
        np.add.at(keys.clock, of, seconds)
        np.add.at(keys.share, of, seconds / keys.members[of])

    def settle(self) -> None:
        """Nobody in a slot owes it to anybody who waits, as things are now."""
        self._settled_until = self._charged + LOOK_AGAIN * self._quantum

    @property
    def settled(self) -> bool:
        """Whether that still holds: nobody has come or gone since, and little has been charged."""
        return self._charged < self._settled_until

    def order(self, numbers: Rows) -> Rows:
        """The places in `numbers`, whose accounts have had least first; equals stay as they are."""
        accounts = self._submissions
        standing = accounts.standing(numbers)
        if len(self._key_numbers) == 1:
            return np.argsort(standing, kind="stable")
        return np.lexsort((standing, self._keys.standing(accounts.key[numbers])))

    def next(self) -> Submission:
        """Whose problem gets the next slot: within their share of slots first, then who has had least."""
        accounts, keys = self._submissions, self._keys
        numbers = accounts.waiting.nonzero()[0]
        if len(numbers) == 1:
            return self._by_number[int(numbers[0])]
        of = accounts.key[numbers]
        first = np.lexsort(
            (
                accounts.arrival[numbers],
                accounts.standing(numbers),
                accounts.held[numbers] >= self._fair_slots(of),
                keys.standing(of),
                keys.held[of] >= self._fair_slots_of_key(),
            )
        )[0]
        return self._by_number[int(numbers[first])]

    def owe(self, numbers: Rows, newcomer: Submission) -> Flags:
        """Which accounts, one per seated row, should yield a slot to a newcomer.

        Those that hold more than their share of slots, or have had more by a quantum.
        """
        own = np.array([self._numbers[newcomer]])
        accounts, keys = self._submissions, self._keys
        of, mine = accounts.key[numbers], accounts.key[own]
        ahead = np.where(
            of == mine,
            accounts.standing(numbers) - accounts.standing(own),
            keys.standing(of) - keys.standing(mine),
        )
        greedy = np.where(
            of == mine,
            accounts.held[numbers] > self._fair_slots(of),
            keys.held[of] > self._fair_slots_of_key(),
        )
        return (greedy | (ahead >= self._quantum)) & (numbers != own)

    def _hold(self, number: int, slots: int) -> None:
        self._submissions.held[number] += slots
        self._keys.held[self._submissions.key[number]] += slots

    def _fair_slots_of_key(self) -> float:
        return max(1.0, self._slots / max(len(self._key_numbers), 1))

    def _fair_slots(self, keys: Rows) -> NDArray[np.float64]:
        return np.maximum(1.0, self._fair_slots_of_key() / np.maximum(self._keys.members[keys], 1))
