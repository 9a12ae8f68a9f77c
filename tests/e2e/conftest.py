"""A whole stack of its own for each module: free ports, its own folder, four accounts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamapp.local.own import OwnStack
from tests.kit.stacks import running_stack

# Names whose partitions are spread over the eight: whichever half a second worker gets, some of them are there.
FOUR_ACCOUNTS = "\n".join(
    f'[accounts.{name}]\nlogin = {login}\nmargin_mode = "{mode}"'
    for name, login, mode in (
        ("alpha", 60000001, "hedging"),
        ("epsilon", 60000002, "netting"),
        ("gamma", 60000003, "hedging"),
        ("zeta", 60000004, "netting"),
    )
)
# The shortest session a broker allows by default, so that a lost worker is noticed soon.
SHORT_SESSIONS = "[kafka]\nsession_timeout_s = 6"
# What the simulated market takes, it shows within milliseconds: an order that is lost is known to be soon.
SHORT_WINDOW = "[terminal]\nsettle_window_s = 3"

# Longer than anything is away here: no signal becomes stale, so each has one right answer. Shorter than the five
# minutes by which the script's stale signals are too old.
LONG_LIVES = "[execution]\nsignal_ttl_s = 240"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    """A running stack with four accounts."""
    settings = f"{SHORT_SESSIONS}\n{SHORT_WINDOW}\n{LONG_LIVES}\n{FOUR_ACCOUNTS}"
    with running_stack(tmp_path_factory.mktemp("stack"), settings) as stack:
        yield stack
