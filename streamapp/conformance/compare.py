"""Two reports side by side: equal where the module decides, of one form where broker and market decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamapp.conformance.report import Check, SuiteReport


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which two reports differ. `matters` where they must not."""

    name: str
    claim: str
    first: Any
    second: Any
    matters: bool

    def text(self) -> str:
        """The difference in a line."""
        return f"{'DIFFERENT' if self.matters else 'deviates '} {self.name}: {self.first} / {self.second}. {self.claim}"


def compare(first: SuiteReport, second: SuiteReport) -> list[Difference]:
    """What differs: shape and errors must be equal; trading has one form; measured values are listed.

    A check that one of the accounts does not allow (skipped) is not compared.
    """
    left, right = ({check.name: check for check in report.checks} for report in (first, second))
    found = []
    for name in dict.fromkeys([*left, *right]):
        difference = _one(name, left.get(name), right.get(name))
        if difference is not None:
            found.append(difference)
    return found


def _one(name: str, first: Check | None, second: Check | None) -> Difference | None:
    known = first or second
    if known is None or "skipped" in {check.outcome for check in (first, second) if check}:
        return None
    exact = known.section in {"shape", "errors"}
    if first is None or second is None:
        told = ["missing" if check is None else "there" for check in (first, second)]
        return Difference(name, known.claim, told[0], told[1], matters=exact)
    if first.observed == second.observed:
        return None
    same_form = _form(first.observed) == _form(second.observed)
    matters = exact or (known.section == "trading" and not same_form)
    return Difference(name, known.claim, first.observed, second.observed, matters=matters)


def _form(value: Any) -> Any:
    """The form of a value: its type, and those of what is in it."""
    if isinstance(value, list):
        return [_form(item) for item in value]
    if isinstance(value, dict):
        return {name: _form(item) for name, item in value.items()}
    return type(value).__name__
