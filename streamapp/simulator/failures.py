"""How a call fails in the terminal."""

from collections.abc import Callable

from streamapp.mt5.retcodes import last_error_of

Reply = Callable[[int, str, str], None]
"""Takes a code of last_error(), its text, and the result as JSON."""


class CallFailed(Exception):  # noqa: N818  # it reads as what it is
    """The terminal refuses a call: `None` for the caller, with a code and words for last_error()."""

    def __init__(self, code: int, text: str | None = None) -> None:
        """`text` if it is not the usual one of the code."""
        super().__init__(code, text)
        self.code = code
        self.text = text if text is not None else last_error_of(code).sentence
