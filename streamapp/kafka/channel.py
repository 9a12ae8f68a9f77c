"""An in-memory channel for one agent, which keeps what it was given."""

from __future__ import annotations

from typing import Any

from faust.channels import Channel
from mode.utils.queues import ThrowableQueue


class MemoryChannel(Channel):
    """Values for the one agent that iterates over it, in their order, from before it started too.

    Faust's own channels hold a bounded number of values, block while the flow is suspended, and are emptied whenever it
    resumes: at every rebalance, and after every recovery.
    """

    _unmanaged: ThrowableQueue | None = None

    @property
    def queue(self) -> ThrowableQueue:
        """The one queue of the channel and of the agent's clone of it."""
        if self._root is not None:
            return self._root.queue
        if self._unmanaged is None:
            self._unmanaged = ThrowableQueue(flow_control=self.app.flow_control, clear_on_resume=False)
        return self._unmanaged

    def feed(self, value: Any) -> None:
        """Give the agent a value; never waits."""
        self.queue.put_nowait(value)
