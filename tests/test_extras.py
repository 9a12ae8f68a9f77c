"""The parts of the package, each in an environment of its own: a wheel of this repository and nothing but one extra."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest

from streamapp import subjects
from streamapp.local.ports import free_port
from streamapp.local.process import REPOSITORY
from streamapp.messages.terminal import HelloReply, SubmitReply
from streamapp.nats.streams import ensure
from streamapp.parts import DISTRIBUTION, WHEEL, pip_install
from streamapp.settings import Settings, settings_from
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.scripted import submit_request

pytestmark = pytest.mark.stack  # each part is installed into an environment of its own

BASE = {
    *(DISTRIBUTION, "pydantic", "pydantic-core", "pydantic-settings", "typing-extensions", "typing-inspection"),
    *("annotated-types", "annotated-doc", "python-dotenv"),
    *("typer", "shellingham", "rich", "markdown-it-py", "mdurl", "pygments"),
}
"""What architecture.md lists for the base, and what that needs itself."""
TERMINAL = BASE | {"nats-py", "numpy", "structlog"}
"""On Windows MetaTrader5 as well."""
LOGIN = 50000001
SUITE_WITHIN_S = 600.0
"""Some thousand tests, on a machine that runs others beside them."""
TESTS_OF_THE_BASE = ("domain", "messages", "mt5", "terminal/pipe", "test_settings.py")
"""What is built with pydantic and its settings; the terminal shares the base's bounds."""
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
"""
TRADE = """
import sys
import streamapp.simulator.metatrader5 as mt5
assert mt5.initialize(login=int(sys.argv[1])), mt5.last_error()
request = {"action": mt5.TRADE_ACTION_DEAL, "symbol": "EURUSD", "volume": 0.1, "type": mt5.ORDER_TYPE_BUY,
           "type_filling": mt5.ORDER_FILLING_IOC}
assert mt5.order_send(request).retcode == mt5.TRADE_RETCODE_DONE
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one part of the package; its commands run away from the repository."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "venv" / "bin" / "python")

    def installed(self) -> set[str]:
        command = [sys.executable, "-m", "pip", "--python", self.python, "list", "--format", "json"]
        listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return {re.sub(r"[-_.]+", "-", package["name"]).lower() for package in listed}

    def run(
        self, *arguments: str, within_s: float = PATIENCE_S, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=within_s,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @contextmanager
    def process(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        with (
            (self.folder / "process.log").open("a") as log,
            subprocess.Popen(
                [self.python, *arguments],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def market(self) -> Iterator[str]:
        port = free_port()
        with self.process("-m", "streamapp.simulator", "--port", str(port)) as process:
            assert process.stdout is not None
            assert "market on" in process.stdout.readline(), (self.folder / "process.log").read_text()
            yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository, built from a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("streamapp", "tables", "agents"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, folder)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(folder / "dist"), str(folder)], check=True, capture_output=True)
    return folder / "dist" / WHEEL


def locked() -> list[str]:
    """Return the versions of requirements.txt."""
    return re.findall(r"^([A-Za-z0-9._-]+==.*?) \\$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)


def environment(wheel: Path, folder: Path, extra: str, versions: Sequence[str], *tools: str) -> Environment:
    """Install the wheel with one extra and the tests' tools, in these versions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (folder / "versions.txt").write_text("\n".join(versions))
    made = Environment(folder)
    command = [sys.executable, "-m", "pip", "--python", made.python, "install", "--quiet", "--retries", "0"]
    command += ["--constraint", str(folder / "versions.txt"), f"{wheel}{extra}", *tools]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip(f"no package index gives what {wheel.name}{extra} needs: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(wheel, tmp_path_factory.mktemp("base"), "", locked())


@pytest.fixture(scope="module")
def terminal(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(wheel, tmp_path_factory.mktemp("terminal"), "[terminal]", locked())


@pytest.fixture(scope="module")
def beside_pytables(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The terminal's part beside PyTables, whose package is called as ours in the repository is: ``tables``."""
    return environment(wheel, tmp_path_factory.mktemp("beside"), "[terminal]", locked(), "tables")


@pytest.fixture(scope="module")
def oldest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The base in the oldest versions that pyproject.toml allows, and pytest in today's."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(project["dependencies"]), re.MULTILINE)
    assert len(bounds) == len(project["dependencies"])
    tools = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
    versions = [each for each in locked() if each.partition("==")[0] in tools]
    versions += [f"{name}=={version}" for name, version in bounds]
    return environment(wheel, tmp_path_factory.mktemp("oldest"), "", versions, *tools)


def test_the_wheel_holds_the_package_streamapp_and_nothing_that_another_distribution_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        folders = {name.partition("/")[0] for name in content.namelist()}
    assert folders == {"streamapp", f"{WHEEL.removesuffix('-py3-none-any.whl')}.dist-info"}


def test_the_base_is_small_and_holds_the_simulator(base: Environment) -> None:
    assert base.installed() == BASE
    assert base.run("-c", IMPORT_ALL, "streamapp.simulator", "streamapp.domain", "streamapp.messages").returncode == 0
    with base.market() as address:
        done = base.run("-c", TRADE, str(LOGIN), STREAMAPP_SIMULATOR_ADDRESS=address)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="a later Python needs later versions of what is compiled")
def test_the_base_works_in_the_oldest_versions_that_it_allows(oldest: Environment) -> None:
    assert oldest.run("-m", "streamapp.cli", "--help").returncode == 0
    with oldest.market() as address:
        assert oldest.run("-c", TRADE, str(LOGIN), STREAMAPP_SIMULATOR_ADDRESS=address).returncode == 0
    # Without conftest.py: it starts servers, whose clients are no part of the base.
    options = ("-q", "-x", "--noconftest", "-p", "no:cacheprovider", "--hypothesis-profile", "ci")
    tests = [str(REPOSITORY / "tests" / name) for name in TESTS_OF_THE_BASE]
    done = oldest.run("-m", "pytest", *options, *tests, within_s=SUITE_WITHIN_S)
    assert done.returncode == 0, done.stdout


def test_the_terminals_part_brings_no_stream_processor(terminal: Environment) -> None:
    assert terminal.installed() == TERMINAL


def test_every_module_of_terminal_and_simulator_is_imported_with_the_terminals_part_alone(
    terminal: Environment,
) -> None:
    packages = [
        f"streamapp.{name}"
        for name in ("terminal", "simulator", "conformance", "domain", "messages", "nats")
        if (REPOSITORY / "streamapp" / name).is_dir()
    ]
    done = terminal.run("-W", "error", "-c", IMPORT_ALL, *packages)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", ["base", "terminal"])
def test_the_command_says_what_it_can_do_without_the_other_parts(part: str, request: pytest.FixtureRequest) -> None:
    made: Environment = request.getfixturevalue(part)
    done = made.run("-m", "streamapp.cli", "--help")
    assert done.returncode == 0
    assert "terminals" in done.stdout


@pytest.mark.parametrize(
    ("part", "command", "needs"),
    [
        ("base", ("terminals",), pip_install("terminal")),
        ("base", ("watch",), pip_install("terminal")),
        ("base", ("account", "show", "demo-hedging"), pip_install("terminal")),
        ("terminal", ("up",), "in the repository"),
        ("terminal", ("demo",), "in the repository"),
        ("terminal", ("init",), pip_install("trading")),
        ("terminal", ("check",), pip_install("trading")),
        ("terminal", ("archive", "export", "history"), pip_install("parquet")),
    ],
)
def test_a_command_of_another_part_names_it(
    part: str, command: tuple[str, ...], needs: str, request: pytest.FixtureRequest, nats_url: str
) -> None:
    made: Environment = request.getfixturevalue(part)
    done = made.run("-m", "streamapp.cli", *command, STREAMAPP_NATS__URL=nats_url)
    assert done.returncode in {1, 2}
    assert needs in done.stdout + done.stderr


@pytest.mark.parametrize("stranger", ["", "agents", "tables"])
@pytest.mark.parametrize("worker", ["trading", "warehouse"])
def test_a_worker_of_an_installed_wheel_says_where_it_runs(worker: str, stranger: str, base: Environment) -> None:
    """Also beside OpenAI's ``agents`` or PyTables' ``tables``, which are found in place of ours."""
    others = base.folder / f"others-{stranger}"
    if stranger:
        (others / stranger).mkdir(parents=True, exist_ok=True)
        (others / stranger / "__init__.py").touch()
    done = base.run("-c", f"import streamapp.{worker}", PYTHONPATH=str(others))
    assert done.returncode == 78
    assert "run it from the repository or its image" in done.stderr


def test_the_wheel_runs_beside_pytables_and_leaves_it_whole(beside_pytables: Environment) -> None:
    made = beside_pytables
    assert {DISTRIBUTION, "tables"} <= made.installed()
    stored = "import tables; tables.open_file('h5', 'w').create_array('/', 'lots', [1, 2]).remove()"
    assert made.run("-c", stored).returncode == 0
    assert made.run("-m", "streamapp.cli", "--help").returncode == 0
    with made.market() as address:
        assert made.run("-c", TRADE, str(LOGIN), STREAMAPP_SIMULATOR_ADDRESS=address).returncode == 0
    worker = made.run("-c", "import streamapp.trading")
    assert (worker.returncode, "run it from the repository or its image" in worker.stderr) == (78, True)


async def test_a_terminal_becomes_ready_executes_an_order_and_stops_cleanly(
    terminal: Environment, nats_url: str
) -> None:
    account = f"extras{os.getpid()}"
    config = terminal.folder / "streamapp.toml"
    config.write_text(
        f'[nats]\nurl = "{nats_url}"\n'
        "[terminal]\npoll_interval_s = 0.05\nquiet_interval_s = 0.15\nequal_reads_s = 0.1\n"
        f"[accounts.{account}]\nlogin = {LOGIN}\n"
    )
    await streams(nats_url, settings_from(config))
    port = free_port()
    with (
        terminal.market() as address,
        terminal.process(
            *("-m", "streamapp.cli", "terminals", "--port", str(port), "--log-file", "log/terminals.log"),
            STREAMAPP_SIMULATOR_ADDRESS=address,
        ) as process,
    ):
        await eventually(lambda: process.poll() is not None or is_well(port), "healthy")
        log = terminal.folder / "log" / "terminals.log"
        assert process.poll() is None, log.read_text()
        assert await executed(nats_url, account, address) == ["buy"]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0, log.read_text()
        assert "connection: ready" in log.read_text()


async def streams(nats_url: str, settings: Settings) -> None:
    client = await nats.connect(nats_url)
    await ensure(client.jetstream(), settings, create=True)
    await client.close()


def is_well(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_S) as response:
            return bool(response.status == 200)
    except OSError:
        return False


async def executed(nats_url: str, account: str, market: str) -> list[str]:
    """Submit an order and return the sides of what the broker executed."""
    client = await nats.connect(nats_url)

    async def ask(operation: str, payload: bytes = b"") -> bytes:
        return (await client.request(subjects.terminal(account, operation), payload, timeout=PATIENCE_S)).data

    try:
        epoch = HelloReply.decode(await ask("hello")).epoch
        order = submit_request("extras", epoch=epoch).model_copy(update={"account": account})
        assert SubmitReply.decode(await ask("submit", order.encode())).state in {"recorded", "started"}
    finally:
        await client.close()
    return [str(deal["side"]) for deal in await eventually(lambda: deals(market), "a deal")]


def deals(market: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://{market}/ledger?account={LOGIN}", timeout=PATIENCE_S) as response:
        rows = [json.loads(line) for line in response.read().decode().splitlines()]
    return [row for row in rows if row["kind"] == "deal" and row["magic"]]
