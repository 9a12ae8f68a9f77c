"""The settle windows of the doubts: when they began, what may end them, and when the next look is due.

Nothing here reads a clock: moments are seconds of one steady clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from streamapp.terminal.journal.orders import Doubt

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between two looks: doubled each time, from a new doubt on."""


@dataclass
class Window:
    """One doubt's settle window; it began with the first look in it. ``suspected``: it waits for a person."""

    doubt: Doubt
    suspected: bool
    began_s: float | None = None
    began_at: datetime | None = None
    looks: int = 0


class Settling:
    """The windows of all doubts on one connection, and the looks that they share.

    Attributes:
        windows: By order id.
        generation: The connection's, of all that was seen in them.
        next_s: When the next look is due.
    """

    def __init__(self, window_s: float, equal_reads_s: float) -> None:
        self._window_s = window_s
        self._equal_reads_s = equal_reads_s
        self._digest: int | None = None
        self._equal_since_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self.windows: dict[str, Window] = {}
        self.generation = -1
        self.next_s = 0.0

    def take(self, open_now: Collection[str], new: Iterable[Doubt]) -> None:
        """Keep the windows of what is still in doubt and open those of what is ``new``."""
        self.windows = {name: window for name, window in self.windows.items() if name in open_now}
        for doubt in new:
            self.windows[doubt.order.order_id] = Window(doubt, doubt.reason == "suspicion")
            self._pause_s, self.next_s = FIRST_PAUSE_S, 0.0

    def begin_anew(self, generation: int) -> None:
        """Forget what was seen: a window counts only whole."""
        for window in self.windows.values():
            window.began_s, window.began_at, window.looks = None, None, 0
        self.generation, self._digest = generation, None
        self._pause_s, self.next_s = FIRST_PAUSE_S, 0.0

    def looked(self, began_s: float, began_at: datetime, digest: int) -> None:
        """Take note of a whole look that began at these moments; ``digest`` is of the settled part of history."""
        if digest != self._digest:
            self._digest, self._equal_since_s = digest, began_s
        for window in self.windows.values():
            window.looks += 1
            if window.began_s is None:
                window.began_s, window.began_at = began_s, began_at

    def over(self, began_s: float) -> list[Window]:
        """Return the windows that are whole with the look that began then, its history as before."""
        if began_s - self._equal_since_s < self._equal_reads_s:
            return []
        return [
            window
            for window in self.windows.values()
            if window.began_s is not None and began_s - window.began_s >= self._window_s
        ]

    def plan(self, now_s: float) -> None:
        """Say when the next look is due: after the pause, or when a window can end before that."""
        equal_s = self._equal_since_s + self._equal_reads_s
        ends = [
            max(window.began_s + self._window_s, equal_s)
            for window in self.windows.values()
            if window.began_s is not None and not window.suspected
        ]
        self.next_s = min([now_s + self._pause_s, *ends])
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
