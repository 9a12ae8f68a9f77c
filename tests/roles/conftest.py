"""One stack for each role, alone, on free ports and in its own folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamapp.local.own import OwnStack
from tests.kit.stacks import running_stack


@pytest.fixture(scope="module")
def execution_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("execution"), 'role = "execution"') as stack:
        yield stack


@pytest.fixture(scope="module")
def connector_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("connector"), 'role = "connector"') as stack:
        yield stack
