"""One stack for each role, alone, on free ports and in its own folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streamapp.local.own import OwnStack, free_port_offset
from streamapp.settings import Role


@contextmanager
def stack_of(role: Role, factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    folder = factory.mktemp(f"role-{role}")
    stack = OwnStack(folder, free_port_offset(), f'role = "{role}"')
    with (folder / "up.out").open("wb") as output:
        stack.start(output)
        try:
            stack.wait_ready()
            yield stack
        finally:
            code = stack.stop()
    assert code == 0, (folder / "up.out").read_text()[-3000:]


@pytest.fixture(scope="module")
def execution_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with stack_of("execution", tmp_path_factory) as stack:
        yield stack


@pytest.fixture(scope="module")
def connector_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with stack_of("connector", tmp_path_factory) as stack:
        yield stack
