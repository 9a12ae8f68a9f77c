"""How long to wait before the next try."""

from __future__ import annotations

import math
import random


class Backoff:
    """Waits that double from ``first_s`` to ``longest_s``, and begin anew after something went well.

    Args:
        first_s: The first wait.
        longest_s: No wait is longer.
        healthy_after_s: What ran for so long was well: its failure is a new story.
        jitter: Up to this share is taken off each wait, so that many who failed together do not try together.

    Attributes:
        failures: How many there were in a row.
    """

    def __init__(
        self, first_s: float, longest_s: float, *, healthy_after_s: float = math.inf, jitter: float = 0.0
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._healthy_after_s = healthy_after_s
        self._jitter = jitter
        self._wait_s = first_s
        self.failures = 0

    def next_s(self, ran_s: float = 0.0) -> float:
        """Count a failure of what ran for ``ran_s``, and return the seconds to wait before the next try."""
        if ran_s > self._healthy_after_s:
            self.reset()
        self.failures += 1
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, self._longest_s)
        return wait_s * random.uniform(1 - self._jitter, 1)  # noqa: S311 -- no secret

    def reset(self) -> None:
        """Begin anew: it went well."""
        self.failures, self._wait_s = 0, self._first_s
