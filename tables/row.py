"""What all rows of our tables have in common."""

from __future__ import annotations

from pydantic import ConfigDict

from streamapp.domain.vocabulary import Frozen


class Row(Frozen):
    """A row as it stands in a changelog.

    A field that is not known is an error: an older worker would read a newer one's row without it, and write it back
    without it. So the worker stops instead; rows are written by the newest version only.
    """

    model_config = ConfigDict(extra="forbid")
