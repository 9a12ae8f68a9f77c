"""When a symbol can be traded, in server time."""

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def is_open(session: str, server_ms: int) -> bool:
    """Whether the market of this kind is open.

    Kinds: always; forex (Monday 00:00 to Friday 24:00); index (forex with a break from 23:00 to 24:00);
    stock (weekdays 16:30 to 23:00).
    """
    if session == "always":
        return True
    weekday, time = (server_ms // DAY_MS + 3) % 7, server_ms % DAY_MS
    if weekday >= 5:
        return False
    if session == "index":
        return time < 23 * HOUR_MS
    if session == "stock":
        return 16.5 * HOUR_MS <= time < 23 * HOUR_MS
    return True
