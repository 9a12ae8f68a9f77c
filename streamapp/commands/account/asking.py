"""One account's terminal on NATS, as a command asks it: typed replies, and one sentence for every way to get none."""

from __future__ import annotations

import getpass
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from streamapp import subjects
from streamapp.commands import completion
from streamapp.errors import Ambiguous, ConfigurationError, Definite, Transient, Unusable
from streamapp.messages.envelope import Message, reason_and_detail
from streamapp.messages.terminal import HelloReply
from streamapp.settings import Settings

if TYPE_CHECKING:
    from nats.aio.client import Client

    from streamapp.nats.connection import ConnectionState

CONNECT_WITHIN_S = 5.0
"""A person waits for the command: a failing-over cluster is asked again by hand."""
ANSWER_WITHIN_S = 10.0
"""Terminals answer within 5 s, whatever the broker does; as long again for the network and a busy machine."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The account's name in the settings (accounts.NAME).", autocompletion=completion.accounts
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, for machines.")]
IssuedBy = Annotated[str | None, typer.Option(help="Who asks, as the order's facts keep it; your user name otherwise.")]
M = TypeVar("M", bound=Message)


class AskedTerminal:
    """The terminal of one account, behind request/reply."""

    def __init__(self, client: Client, settings: Settings, account: str, denied: Sequence[str] = ()) -> None:
        """``denied``: what NATS has forbidden on this connection so far."""
        self._client = client
        self._denied = denied
        self._settings = settings
        self.account = account

    async def hello(self) -> HelloReply:
        """Return who the terminal is now.

        Raises:
            StreamappError: as :meth:`ask`.
        """
        return await self.ask("hello", HelloReply)

    async def ask(self, operation: str, reply: type[M], request: Message | None = None) -> M:
        """Return the terminal's answer; every request may be asked again.

        Raises:
            Transient: nobody was there to hear it.
            Ambiguous: no answer came in time, or one that this version can't read: it may have been heard.
        """
        import nats.errors

        payload = b"" if request is None else request.encode()
        subject = subjects.terminal(self.account, operation)
        try:
            answer = await self._client.request(subject, payload, timeout=ANSWER_WITHIN_S)
        except nats.errors.NoRespondersError:
            raise Transient(self._nobody()) from None
        except nats.errors.OutboundBufferLimitError:
            raise Transient(f"the connection to NATS at {_shown(self._settings)} is lost: ask again") from None
        except (nats.errors.Error, OSError) as error:
            reason = "no answer" if isinstance(error, nats.errors.TimeoutError) else str(error)
            raise Ambiguous(self._silence(reason)) from None
        try:
            return reply.decode(answer.data)
        except Unusable as error:
            raise Ambiguous(
                f"expected an answer that this version of streamapp knows, got one that is {error}: "
                "install the same version here and where the terminal runs"
            ) from None

    def _silence(self, reason: str) -> str:
        if self._denied:
            return (
                f"NATS forbids to ask the terminal of {self.account}: {self._denied[0]}. Give this user the permission"
            )
        return (
            f"expected an answer of the terminal of {self.account} within {ANSWER_WITHIN_S:g} s, got {reason}: "
            "look at /health and the log of `streamapp terminals`, and ask again"
        )

    def _nobody(self) -> str:
        names = ", ".join(self._settings.accounts)
        if self.account in self._settings.accounts:
            hint = f"start it where MetaTrader 5 is, with `streamapp terminals --account {self.account}`"
        else:
            hint = f"the settings here know no such account, only {names}; check the name"
        return f"no terminal of account {self.account} answers on NATS at {_shown(self._settings)}: {hint}"


@asynccontextmanager
async def asking(settings: Settings, account: str) -> AsyncIterator[AskedTerminal]:
    """Be connected for as long as the block.

    Raises:
        ConfigurationError: the name can't be an account's, or NATS refuses us.
        Transient: NATS is away.
    """
    if not account.strip() or account in subjects.RESERVED_ACCOUNTS:
        raise ConfigurationError(f"expected the name of an account, such as {', '.join(settings.accounts)}")
    denied: list[str] = []

    def on_state(state: ConnectionState) -> None:
        denied[:] = [state.denied] if state.denied else []

    async with connected(settings, "streamapp-account", on_state) as client:
        yield AskedTerminal(client, settings, account, denied)


@asynccontextmanager
async def connected(
    settings: Settings, name: str, on_state: Callable[[ConnectionState], None] | None = None
) -> AsyncIterator[Client]:
    """Be connected to NATS for as long as the block, for a person who waits.

    Raises:
        ConfigurationError: NATS refuses us.
        Transient: NATS is away.
    """
    from streamapp.nats.connection import connect

    # What happens to the connection is in the command's own sentence, not in log lines beside it.
    logging.getLogger("streamapp.nats").addHandler(logging.NullHandler())
    client = await connect(settings, name, on_state=on_state, wait_s=CONNECT_WITHIN_S)
    try:
        yield client
    finally:
        await client.close()


def made(request: type[M], **fields: Any) -> M:
    """Return a request of what was typed.

    Raises:
        Definite: a value that no terminal would take, by its name and what was expected.
    """
    try:
        return request(**fields)
    except ValidationError as error:
        raise Definite(f"nothing was asked: {reason_and_detail(error)[1]}") from None


def who(issued_by: str | None) -> str:
    """Return who asks: as given, or the user of this machine.

    Raises:
        ConfigurationError: neither is there.
    """
    if issued_by:
        return issued_by
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise ConfigurationError("expected --issued-by: this machine has no name for you") from None


def confirm(meaning: str) -> None:
    """Return if the person says yes.

    Raises:
        typer.Exit: 1, the person says no.
        ConfigurationError: nobody is there to ask.
    """
    typer.echo(meaning, err=True)
    try:
        agreed = typer.confirm("Do it?", err=True)
    except typer.Abort:
        typer.echo(err=True)  # the question stands on a line without an end
        raise ConfigurationError("nothing was done: expected a yes, or --yes where nobody can be asked") from None
    if not agreed:
        typer.echo("nothing was done", err=True)
        raise typer.Exit(1)


def _shown(settings: Settings) -> str:
    return ", ".join(
        server.rpartition("@")[2].removeprefix("nats://").strip() for server in settings.nats_url.split(",")
    )
