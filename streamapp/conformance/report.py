"""What a run of the suite found: a list of checks, each with the claim that it settles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamapp.errors import ConfigurationError

Outcome = Literal["passed", "failed", "deviation", "skipped", "measured"]
"""`deviation`: not as claimed, where the claim was never verified: the run has settled it."""

Section = Literal["shape", "errors", "trading", "measured"]
SECTIONS: dict[Section, str] = {
    "shape": "Fields, types, constants, functions",
    "errors": "Bad calls and their errors",
    "trading": "Orders of the smallest lot",
    "measured": "Measured",
}


class Check(BaseModel):
    """One check: what mt5.md claims (with its evidence), what came, and whether that is the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    section: Section
    claim: str
    outcome: Outcome
    expected: Any = None
    observed: Any = None
    note: str = ""

    @property
    def unverified(self) -> bool:
        """Whether the claim was a guess before this run."""
        return "[UNV]" in self.claim


class SuiteReport(BaseModel):
    """A run of the suite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["streamapp.conformance/1"] = Field("streamapp.conformance/1", alias="schema")
    about: dict[str, Any]
    checks: tuple[Check, ...]
    leftovers: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def conformant(self) -> bool:
        """Whether nothing failed, nothing was left behind, and the run came to its end."""
        return not self.stopped and not self.leftovers and not any(self.of("failed"))

    def of(self, *outcomes: Outcome) -> Iterator[Check]:
        """The checks with one of these outcomes."""
        return (check for check in self.checks if check.outcome in outcomes)

    def save(self, path: Path) -> None:
        """Writes the report as JSON."""
        path.write_text(self.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """The report for a person."""
        lines = [f"{name:<14}{value}" for name, value in self.about.items()]
        for section, title in SECTIONS.items():
            counted = Counter(check.outcome for check in self.checks if check.section == section)
            lines.append(f"{title}: " + (", ".join(f"{n} {outcome}" for outcome, n in counted.items()) or "none"))
            if section == "measured":
                lines += [f"  {c.name}: {c.observed}" for c in self.checks if c.section == section]
        for outcome, title in (("failed", "FAILED"), ("deviation", "DIFFERS from an unverified claim")):
            lines += [_line(title, check) for check in self.of(outcome)]  # type: ignore[arg-type]  # both are outcomes
        lines += [f"LEFT BEHIND {leftover}: close it by hand" for leftover in self.leftovers]
        if self.stopped:
            lines.append(f"STOPPED {self.stopped}")
        return "\n".join(lines)


def _line(title: str, check: Check) -> str:
    return f"{title} {check.name}: expected {check.expected}, got {check.observed}. {check.claim} {check.note}".rstrip()


def load(path: Path) -> SuiteReport:
    """A report from its file.

    Raises:
        ConfigurationError: it can't be read, or is no report.
    """
    try:
        return SuiteReport.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"expected a report of mt5-conformance in {path}, got {error}") from error
