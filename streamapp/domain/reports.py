"""How far a terminal's reports are durable with us: a contiguous watermark (design: submission "Reports")."""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_AHEAD = 10_000
"""Numbers beyond a gap that are remembered. What is forgotten is redelivered with the replay that fills the gap."""
MOST_EPOCHS = 16
"""Journals an account had before; each new one means that a person lost or removed the last."""


@dataclass(frozen=True)
class ReportProgress:
    """A journal's epoch, the number up to which all its reports are durable, and those durable beyond a gap."""

    epoch: str
    watermark: int = 0
    ahead: frozenset[int] = frozenset()
    earlier: tuple[str, ...] = ()

    @property
    def has_gap(self) -> bool:
        """Whether a report is missing that comes before one we have."""
        return bool(self.ahead)

    def has(self, epoch: str, seq: int) -> bool:
        """Return whether report ``seq`` of ``epoch`` is durable; of an earlier journal's nobody remembers it."""
        return epoch == self.epoch and (seq <= self.watermark or seq in self.ahead)

    def seen(self, epoch: str, seq: int) -> ReportProgress:
        """Return the progress when report ``seq`` of ``epoch`` is durable; one of an earlier journal changes nothing.

        A new journal starts at 1, and the last one is over: what it had not said is lost with it.
        """
        if epoch in self.earlier:
            return self
        if epoch != self.epoch:
            return self._followed_by(epoch).seen(epoch, seq)
        if seq <= self.watermark:
            return self
        if seq > self.watermark + 1:
            return replace(self, ahead=frozenset(sorted({*self.ahead, seq})[:MOST_AHEAD]))
        return self._reached(seq)

    def released(self, epoch: str, seq: int) -> ReportProgress:
        """Return the progress when the journal has forgotten its reports up to ``seq``, as it was once told to.

        It can never say them again, so nothing is to wait for them.
        """
        if epoch in self.earlier:
            return self
        if epoch != self.epoch:
            return self._followed_by(epoch).released(epoch, seq)
        return self if seq <= self.watermark else self._reached(seq)

    def _followed_by(self, epoch: str) -> ReportProgress:
        return ReportProgress(epoch, earlier=(*self.earlier, self.epoch)[-MOST_EPOCHS:])

    def _reached(self, seq: int) -> ReportProgress:
        while seq + 1 in self.ahead:
            seq += 1
        return replace(self, watermark=seq, ahead=frozenset(number for number in self.ahead if number > seq))
