"""A password that is wrong: the terminal says so, and does not have the broker lock the account."""

from __future__ import annotations

from datetime import UTC, datetime

from streamapp.terminal.account.connection import FIRST_LOGIN_S, RETRY_JITTER
from tests.kit.waiting import eventually
from tests.terminal.desk import ACCEPTED, Desk
from tests.terminal.field.conftest import Start


def logins(desk: Desk, since: datetime) -> list[datetime]:
    """Return when the terminal tried to log in, by its broker log."""
    entries = {entry.seq: entry for entry in desk.terminal.entries if entry.function == "initialize"}
    return [entry.at for _, entry in sorted(entries.items()) if entry.at > since]


async def test_a_wrong_password_is_said_and_not_tried_again_at_once_until_it_is_mended(start: Start) -> None:
    desk = await start()
    await desk.open()
    password = desk.terminal.log.with_name("password")
    password.write_text("wrong\n")
    assert await desk.terminal.stop() == 0
    since = datetime.now(UTC)
    desk.terminal.start()
    await desk.becomes("wrong_password")
    assert "mend login, server and password_file" in desk.detail("wrong_password")
    refused = await desk.submits("refused", valid_s=1.0)
    assert "still wrong_password" in refused["refused"].message
    await eventually(lambda: len(logins(desk, since)) > 1, "a second login")
    first, second, *_ = logins(desk, since)
    assert (second - first).total_seconds() >= FIRST_LOGIN_S * (1 - RETRY_JITTER)
    password.write_text("s3cret\n")
    assert await desk.terminal.stop() == 0
    desk.terminal.start()
    await desk.terminal.ready()
    await desk.submits(*ACCEPTED)
    await desk.close(sends=1)
