"""One group of an account's inputs becomes one commit: the only entry to the desk (design: desk)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from streamapp import topics
from streamapp.desk.acceptance import answer_copy, decide_signal
from streamapp.desk.alarms import keep_alarms
from streamapp.desk.commands import pursue_commands, take_command, take_command_answer
from streamapp.desk.day import keep_time
from streamapp.desk.effects import Effect
from streamapp.desk.exits import pursue, take_operation
from streamapp.desk.foreign import take_foreign
from streamapp.desk.history import keep_history
from streamapp.desk.inputs import (
    Broken,
    ForeignReport,
    Input,
    NewCommand,
    NewSignal,
    OperationAnswered,
    Prune,
    Released,
    Snapshot,
    Spoiled,
    SubmitAnswered,
    SubmitUnanswered,
    Sweep,
    TerminalReport,
)
from streamapp.desk.notices import notify_sender, refuse_undecided
from streamapp.desk.policy import Policy
from streamapp.desk.pruning import prune
from streamapp.desk.reconciliation import note_deals, reconcile
from streamapp.desk.reports import (
    count_seen,
    finish_reports,
    finish_snapshot,
    take_released,
    take_report,
    take_snapshot,
)
from streamapp.desk.state import (
    NO_MEMORY,
    NO_TERMINAL,
    NOTHING_OPEN,
    Alarm,
    Draft,
    Letter,
    Memory,
    Open,
    Rows,
    TerminalStatus,
)
from streamapp.desk.submission import sweep, take_answer
from streamapp.desk.trading import set_trading
from streamapp.domain.facts import Fact
from streamapp.domain.signals import Verdict
from streamapp.errors import Unusable
from streamapp.messages.commit import Publication
from tables.row import Row


class BrokenRuleError(Exception):
    """A rule of ours broke on an input before it came here."""


@dataclass(frozen=True, slots=True)
class State:
    """What a decision depends on beside its inputs.

    Attributes:
        account: Whose inputs they are.
        rows: The durable rows of its partition.
        terminal: What is known of its terminal.
        memory: What its lane remembers.
        halting: Why the account must not open orders, by the order whose facts show it.
        open: What is open at the account.
    """

    account: str
    policy: Policy
    rows: Rows
    terminal: TerminalStatus = NO_TERMINAL
    memory: Memory = NO_MEMORY
    halting: Mapping[str, str] = field(default_factory=dict)
    open: Open = NOTHING_OPEN


@dataclass(frozen=True, slots=True)
class Decided:
    """What a group of inputs comes to.

    Attributes:
        rows: To be written in one atomic commit, together with the outbox.
        facts: The commit's facts, in order.
        publications: The commit's messages, in order.
        effects: To be carried out once the commit is durable, and not before.
        letters: To be durable before the inputs are acknowledged.
        away: Rows of the same write, as they are stored, that were over for long: put away, or ended.
        memory: What the lane remembers from now on.
        counts: For metrics, by (name, labels…).
    """

    rows: dict[bytes, Row]
    facts: tuple[Fact, ...]
    publications: tuple[Publication, ...]
    effects: tuple[Effect, ...]
    letters: tuple[Letter, ...]
    alarms: tuple[Alarm, ...]
    memory: Memory
    counts: Counter[tuple[str, ...]]
    away: dict[bytes, bytes] = field(default_factory=dict)


def decide(state: State, inputs: Iterable[Input], now: datetime) -> Decided:
    """Return what ``inputs``, in their order, make of ``state`` at ``now``."""
    given = list(inputs)
    draft = Draft(
        state.account,
        now,
        state.policy,
        state.rows,
        terminal=state.terminal,
        memory=state.memory,
        halting=state.halting,
        open=state.open,
    )
    keep_time(draft)
    for each in given:
        _take(draft, each)
        pursue(draft, asks_again=isinstance(each, Sweep))
        pursue_commands(draft, asks_again=isinstance(each, Sweep))
        note_deals(draft)
    finish_reports(draft)
    finish_snapshot(draft)
    keep_history(draft)
    reconcile(draft)
    for each in given:
        if isinstance(each, Prune):
            prune(draft, each)
    return _decided(draft)


def halt(state: State, inputs: Iterable[Input], now: datetime, reason: str) -> Decided:
    """Return what becomes of inputs by which a rule of ours broke: dead letters, and an account that opens nothing.

    The account goes on taking reports, and the sender of a signal or a command is told. Inputs that are no records of
    Kafka repeat by themselves.
    """
    draft = Draft(state.account, now, state.policy, state.rows, memory=state.memory)
    for each in inputs:
        incoming = getattr(each, "incoming", None)
        if incoming is not None:
            # A traceback ends with what broke, and a letter's detail has room for 1000 bytes.
            draft.bury(incoming.dead("internal", reason[-900:]), incoming.key, incoming.partition)
            if incoming.topic in {topics.SIGNALS_APPROVED, topics.ORDER_COMMANDS}:
                refuse_undecided(draft, incoming, Unusable("internal", _last_line(reason)))
        if isinstance(each, NewSignal):
            answer_copy(draft, each, Verdict("refused", "internal", _last_line(reason)), order_id=None, at=now)
        if isinstance(each, TerminalReport):
            # What can't be understood is kept as a dead letter; the watermark must pass it, or nothing else could.
            count_seen(draft, each)
    finish_reports(draft)
    set_trading(draft, "halted", f"internal: {_last_line(reason)}", by="streamapp")
    draft.alarm("internal", f"account {state.account} opens nothing any more: {reason}")
    return _decided(draft)


def _decided(draft: Draft) -> Decided:
    keep_alarms(draft)
    return Decided(
        rows=draft.changed,
        facts=tuple(draft.facts),
        publications=tuple(draft.publications),
        effects=tuple(draft.effects),
        letters=tuple(draft.letters),
        alarms=tuple(draft.alarms),
        memory=draft.memory,
        counts=draft.counts,
        away=draft.away,
    )


def _last_line(trace: str) -> str:
    """Return what broke, without where: it is shown to whoever sends a signal to a halted account."""
    return trace.strip().rpartition("\n")[2][:500]


def _take(draft: Draft, new: Input) -> None:  # noqa: PLR0912  one branch for each input
    try:
        match new:
            case NewSignal():
                decide_signal(draft, new)
            case TerminalReport():
                take_report(draft, new)
            case ForeignReport():
                take_foreign(draft, new)
            case Snapshot():
                take_snapshot(draft, new)
            case Sweep():
                sweep(draft, new)
            case SubmitAnswered() | SubmitUnanswered():
                take_answer(draft, new)
            case NewCommand():
                take_command(draft, new)
            case OperationAnswered() if new.asker.kind == "command":
                take_command_answer(draft, new)
            case OperationAnswered():
                take_operation(draft, new)
            case Released():
                take_released(draft, new)
            case Prune():
                pass  # last of all, of what this commit does not change
            case Spoiled():
                notify_sender(draft, new.incoming, new.error, final=new.final)
            case Broken():
                raise BrokenRuleError(new.trace)
    except Unusable as error:
        assert isinstance(new, ForeignReport | NewCommand)
        notify_sender(draft, new.incoming, error)
