"""A run of the suite in progress: it collects checks and tells somebody of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streamapp.conformance.caller import Caller
from streamapp.conformance.report import Check, Section

Progress = Callable[[Check], None]


@dataclass(slots=True)
class Run:
    """Where checks go. `section` is that of the checks to come."""

    caller: Caller
    progress: Progress
    section: Section = "shape"
    checks: list[Check] = field(default_factory=list)

    def note(self, check: Check) -> None:
        """Adds a check."""
        self.checks.append(check)
        self.progress(check)

    def equal(self, name: str, claim: str, expected: Any, observed: Any, note: str = "") -> bool:
        """Checks that what was observed is what is claimed; where the claim is unverified, it settles it."""
        same = bool(expected == observed)
        outcome = "passed" if same else "deviation" if "[UNV]" in claim else "failed"
        self.note(
            Check(name=name, section=self.section, claim=claim, outcome=outcome, expected=expected, observed=observed,
                  note=note)
        )  # fmt: skip
        return same

    def skipped(self, name: str, claim: str, why: str) -> None:
        """A check that this account or module does not allow."""
        self.note(Check(name=name, section=self.section, claim=claim, outcome="skipped", note=why))

    def failed(self, name: str, claim: str, why: str) -> None:
        """A check that did not come to its end."""
        self.note(Check(name=name, section=self.section, claim=claim, outcome="failed", note=why))

    def measured(self, name: str, claim: str, observed: Any, note: str = "") -> None:
        """Something that has no right value."""
        self.note(Check(name=name, section="measured", claim=claim, outcome="measured", observed=observed, note=note))
