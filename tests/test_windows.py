"""What runs on Windows stays able to: its modules are checked as Windows sees them, and use nothing of POSIX unguarded.

mypy (``make types``) finds functions that Windows has not got, such as os.fork. What is found here exists there and
means something else, or fails when it is called.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp.local.process import REPOSITORY
from streamapp.settings import AccountSettings, Settings
from streamapp.terminal.account.connection import WHAT_TO_DO

PACKAGES = ("processes", "terminal", "simulator", "conformance", "domain", "messages", "nats")
COMMANDS = ("streamapp.commands.", "streamapp.cli.")
"""The command line runs there as well; what it starts for the local stack says so itself (commands/stack.py)."""
GUARDED = {
    "os.kill": "it is TerminateProcess there, also with signal 0",
    "add_signal_handler": "loops have no signal handlers there",
    "remove_signal_handler": "loops have no signal handlers there",
    "SIGKILL": "it is not there",
    "SIGHUP": "it is not there",
    "flock": "msvcrt.locking is what there is",
    "getppid": "a parent's number is given to others there; membership of a job is not",
    "prctl": "it is Linux's",
    "fchmod": "it is not there",
    "chmod": "it only knows read-only there; ACLs say who may read",
    "symlink_to": "it needs a right that users have not got there",
    "rename": "it fails there where the target exists: replace",
    "os.link": "it is not on every file system there",
    "open_unix_connection": "there are no Unix sockets there",
    "start_unix_server": "there are no Unix sockets there",
    "AF_UNIX": "there are no Unix sockets there",
    "SO_REUSEADDR": "it lets two processes have one port there",
    "preexec_fn": "there is no fork there",
    "pass_fds": "handles are inherited otherwise there",
    "start_new_session": "there are no sessions of processes there",
    "uvloop": "it is not for Windows",
}
ABSENT = frozenset({"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"})
PATHS = re.compile(r"^/(tmp|dev|proc|etc|var|usr|bin)(/|$)")


def modules() -> dict[str, Path]:
    """Return every module that what runs on Windows imports, itself included."""
    found: dict[str, Path] = {}
    waiting = [path for name in PACKAGES for path in (REPOSITORY / "streamapp" / name).rglob("*.py")]
    while waiting:
        path = waiting.pop()
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        if name not in found:
            found[name] = path
            waiting += [file for wanted in imports(path) if (file := file_of(wanted)) is not None]
    return found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    if module.partition(".")[0] not in {"streamapp", "tables", "agents"}:
        return None
    path = REPOSITORY.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def unguarded(path: Path) -> Iterator[ast.AST]:
    """Return the nodes of a module that are not inside ``if sys.platform ...`` or ``if os.name ...``."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If | ast.IfExp) and re.search(r"sys\.platform|os\.name", ast.unparse(node.test)):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


MODULES = modules()


def test_every_module_that_runs_on_windows_is_type_checked_as_windows_sees_it() -> None:
    asked = re.findall(r"-[pm] (streamapp[.\w]*)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    assert set(asked) >= {f"streamapp.{name}" for name in PACKAGES if (REPOSITORY / "streamapp" / name).is_dir()}
    strangers = [
        name for name in MODULES if f"{name}.".startswith(("tables.", "agents.", "streamapp.local.", *COMMANDS))
    ]
    assert strangers == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_of_posix_is_used_without_its_windows_counterpart(name: str) -> None:
    path = MODULES[name]
    found = []
    for node in unguarded(path):
        if isinstance(node, ast.Attribute | ast.keyword):
            words = {node.arg or ""} if isinstance(node, ast.keyword) else {node.attr, ast.unparse(node)}
            found += [f"{path.name}:{node.lineno}: {word}: {GUARDED[word]}" for word in words & GUARDED.keys()]
        if isinstance(node, ast.Import | ast.ImportFrom):
            wanted = {getattr(node, "module", None) or "", *(alias.name for alias in node.names)}
            found += [f"{path.name}:{node.lineno}: {module} is not there" for module in wanted & ABSENT]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PATHS.match(node.value):
            found.append(f"{path.name}:{node.lineno}: {node.value} is no path there")
    assert found == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_text_files_name_their_encoding(name: str) -> None:
    """Windows' default is the machine's code page, and a settings file or a log is UTF-8."""
    found = []
    for node in unguarded(MODULES[name]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            named = {keyword.arg for keyword in node.keywords}
            reads = function in {"read_text", "write_text"} and not {"utf-8", "ascii"} & set(words)
            opens = function == "open" and is_path(node) and not any("b" in str(word) for word in words)
            if (reads or opens) and "encoding" not in named:
                found.append(f"{MODULES[name].name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def is_path(call: ast.Call) -> bool:
    """Whether a call of open() opens a text file: not os.open, and not a method of our own."""
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else "open"
    return owner == "open" or owner.endswith(("path", "file", "Path"))


def test_the_manual_says_of_every_health_state_what_the_terminal_says() -> None:
    page = (REPOSITORY / "docs" / "windows.md").read_text(encoding="utf-8")
    rows = {state: todo.strip() for state, todo in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)}
    assert rows == WHAT_TO_DO


def test_every_setting_of_the_manual_is_one() -> None:
    page = (REPOSITORY / "docs" / "windows.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    settings = Settings.model_validate(tomllib.loads(example))
    assert settings.accounts["demo-1"].module == "MetaTrader5"
    assert set(re.findall(r"`(terminal_\w+) =", page)) <= set(AccountSettings.model_fields)
    assert str(settings.execution.max_clock_skew_s).removesuffix(".0") + " s" in page
    assert str(settings.ports.terminals) in page
