"""The one error tree. Whether trying again can help is the class, not a flag.

::

    StreamappError
    ├── ConfigurationError      a setting or a server's state is wrong: a person mends it, then starts again
    ├── Definite                it did not happen and won't: no use in trying again with the same input
    │   └── Unusable            input that nobody can use: dead letter or refusal, with its reason
    ├── Transient               it did not happen, and may work later: try again with back-off
    └── Ambiguous               nobody knows whether it happened: never tried again blindly; the worker exits, or a
                                doubt is resolved
"""

from __future__ import annotations


class StreamappError(Exception):
    """The root of all errors of ours; its text says what was expected, what came, and what to do next."""


class ConfigurationError(StreamappError):
    """A setting or a server's state is wrong, and a person must mend it."""


class Definite(StreamappError):  # noqa: N818 -- the class is a judgement, and reads as one
    """It did not happen, and the same input will not make it happen."""


class Unusable(Definite):
    """Input that can't be used.

    ``reason`` is one of a small set of words (it becomes a header, a column and a metric's label).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Transient(StreamappError):  # noqa: N818 -- the class is a judgement, and reads as one
    """It did not happen and may work later."""


class Ambiguous(StreamappError):  # noqa: N818 -- the class is a judgement, and reads as one
    """Nobody knows whether it happened: silence is not an outcome."""
