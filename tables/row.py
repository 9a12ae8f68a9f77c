"""What all rows of the store have in common."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict

from streamapp.domain.vocabulary import Frozen


class Row(Frozen):
    """A row as it stands in the changelog, as JSON without the fields that have their default.

    A field that is not known is an error: an older worker would read a newer one's row without it, and write it back
    without it. So the worker stops instead; rows are written by the newest version only.
    """

    model_config = ConfigDict(extra="forbid")

    def encode(self) -> bytes:
        """Return the row as it is stored."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the row in ``value``; raises pydantic's ValidationError for what another version wrote."""
        return cls.model_validate_json(value)
