"""What a symbol is called in the house and at one account's broker, one to one in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

OUTSIDE = "broker:"
"""Begins the house's name of a symbol of the broker whose own name is, in the house, another symbol's or none.

A close of a position in it must reach that very symbol: on a netting account any other one would be opened.
"""


@dataclass(frozen=True, slots=True)
class SymbolNames:
    """The names of an account's symbols.

    ``named`` maps the house's name to the broker's and wins over the rule, which puts ``prefix`` and ``suffix`` around
    the house's name. What the broker has beside them is ``broker:NAME`` in the house.

    Guarantees:
        ``broker(house(name)) == name`` for every name of a broker. No two names of the house are one symbol: one that
        would be another's becomes a name that no broker has.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    suffix: str = ""

    def __bool__(self) -> bool:
        """Return whether any symbol may have two names."""
        return bool(self.named or self.prefix or self.suffix)

    def broker(self, house: str) -> str:
        """Return what the broker calls a symbol of the house; no symbol is none."""
        if not house or house in self.named:
            return self.named.get(house, house)
        outside = house.removeprefix(OUTSIDE)
        if outside != house and self.house(outside) == house:
            return outside
        name = f"{self.prefix}{house}{self.suffix}"
        return name if self.house(name) == house else OUTSIDE + house

    def house(self, broker: str) -> str:
        """Return what the house calls a symbol of the broker; no symbol is none."""
        if not broker:
            return broker
        entry = next((house for house, name in self.named.items() if name == broker), None)
        if entry is not None:
            return entry
        house = self._by_rule(broker)
        is_own = bool(house) and house not in self.named and not house.startswith(OUTSIDE)
        return house if is_own else OUTSIDE + broker

    def shown(self, house: str) -> str:
        """Return a symbol's name for a person: both names where they differ."""
        broker = self.broker(house)
        return house if broker == house else f"{house}, {broker} at the broker"

    def clashes(self) -> Iterator[str]:
        """Yield a sentence for each symbol of the broker that two names of the house mean."""
        first: dict[str, str] = {}
        for house, broker in self.named.items():
            if (other := first.setdefault(broker, house)) != house:
                yield f"expected a symbol of the broker for each name, got {broker} for {other} and for {house}"
            ruled = self._by_rule(broker) if self.prefix or self.suffix else ""
            if ruled and ruled not in self.named:
                yield f"expected a symbol of the broker for each name, got {broker} for {house} and, by rule, {ruled}"

    def _by_rule(self, broker: str) -> str:
        """Return whose name the rule would make this one of, empty if nobody's."""
        if not broker.startswith(self.prefix) or not broker.endswith(self.suffix):
            return ""
        return broker[len(self.prefix) : max(len(self.prefix), len(broker) - len(self.suffix))]
