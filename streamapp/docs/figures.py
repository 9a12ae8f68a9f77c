"""What our processes count and when it is an alarm: the table in docs/operations.md, the dashboard and the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from streamapp.desk.alarms import AlarmMeaning

Severity = Literal["critical", "warning"]
"""critical: somebody should look now. warning: somebody should look today."""


class AlarmRule(NamedTuple):
    """When a figure is an alarm: in words, as an expression of Prometheus, and how long that must be so."""

    name: str
    when: str
    expression: str
    severity: Severity = "warning"
    lasting: str = "0s"


class Figure(NamedTuple):
    """One or several metrics that are looked at together.

    Attributes:
        metrics: Their names, with labels where only those count.
        meaning: What it means, and what to do; Markdown.
        panel: The panel of the dashboard that shows it.
        query: What is plotted there.
        legend: What a line is called.
    """

    metrics: tuple[str, ...]
    meaning: str
    panel: str
    query: str
    legend: str = "{{account}}"
    alarm: AlarmRule | None = None


UNITS = {"Steps of an order, 95th percentile": "s", "Lag": "s", "Unsaid": "bytes"}
"""Of a panel's axis; the others count."""
MONEY = "Equity and floating profit"
WINDOW = "[$__rate_interval]"


def rising(metric: str, window: str = "5m") -> str:
    """Return whether a counter rose within a window; one that was not there before rose from zero."""
    return f"increase({metric}[{window}]) > 0 or ({metric} > 0 unless {metric} offset {window})"


FIGURES: tuple[Figure, ...] = (
    Figure(
        ("streamapp_orders_total",),
        "orders by each status that they came to",
        "Orders by status, a minute",
        f"60 * sum by (status) (rate(streamapp_orders_total{WINDOW}))",
        "{{status}}",
    ),
    Figure(
        ("streamapp_decisions_total",),
        "signals by decision and reason",
        "Decisions, a minute",
        f"60 * sum by (decision, reason) (rate(streamapp_decisions_total{WINDOW}))",
        "{{decision}} {{reason}}",
    ),
    Figure(
        ("streamapp_web_signals_total",),
        "messages to `POST /signals` by source and answer ([webhook.md](webhook.md)): `accepted`, `refused`, `split`, "
        "or the reason of an error. `undecided` may still be traded; of `not_stored` NATS did not say that it has it",
        "Signals by webhook, a minute",
        f"60 * sum by (source, answer) (rate(streamapp_web_signals_total{WINDOW}))",
        "{{source}} {{answer}}",
        AlarmRule(
            "WebhookWithoutDecision",
            "`undecided` or `not_stored`, rising",
            rising('streamapp_web_signals_total{answer=~"undecided|not_stored"}'),
            "critical",
        ),
    ),
    Figure(
        ("streamapp_step_seconds",),
        "how long each step of an order took, from the signal to the fill, as in [report.md](report.md); what the "
        "terminal or the broker says is by that machine's clock",
        "Steps of an order, 95th percentile",
        f"histogram_quantile(0.95, sum by (le, step) (rate(streamapp_step_seconds_bucket{WINDOW})))",
        "{{step}}",
        AlarmRule(
            "DecisionsSlow",
            "`signal to created` takes more than a second for one of 100",
            'histogram_quantile(0.99, sum by (le) (rate(streamapp_step_seconds_bucket{step="signal to created"}[5m]))) '
            "> 1",
            lasting="1m",
        ),
    ),
    Figure(
        ("streamapp_account_equity", "streamapp_account_balance"),
        "an account's money as its terminal sees it, by `account` and `currency`",
        MONEY,
        'streamapp_account_equity{account=~"$account"}',
        "{{account}} {{currency}}",
    ),
    Figure(
        ("streamapp_account_floating_profit",),
        "what the open positions have made so far: equity less balance and credit",
        MONEY,
        'streamapp_account_floating_profit{account=~"$account"}',
        "{{account}} floating {{currency}}",
    ),
    Figure(
        ("streamapp_account_margin", "streamapp_account_margin_free"),
        "what the positions bind, and what is left for new ones",
        "Free margin",
        'streamapp_account_margin_free{account=~"$account"}',
        "{{account}} {{currency}}",
        AlarmRule(
            "FreeMarginLow",
            "free margin is less than a tenth of the equity",
            "streamapp_account_margin_free < 0.1 * streamapp_account_equity",
            lasting="1m",
        ),
    ),
    Figure(
        ("up",),
        "Prometheus' own: whether a process of ours answers",
        "Processes",
        "up",
        "{{job}} {{instance}}",
        AlarmRule("ProcessAway", "0 for a minute", "up == 0", "critical", "1m"),
    ),
    Figure(
        ("streamapp_mirror_oldest_seconds",),
        "signals wait; beyond `signal_ttl_s` they are refused as stale",
        "Lag",
        "streamapp_mirror_oldest_seconds",
        "mirror {{stream}}",
        AlarmRule("SignalsWait", "> 5", "streamapp_mirror_oldest_seconds > 5", "critical"),
    ),
    Figure(
        ("streamapp_mirror_seconds",),
        "from JetStream's storing of a message to Kafka's acknowledgement",
        "Lag",
        f"histogram_quantile(0.95, sum by (le, stream) (rate(streamapp_mirror_seconds_bucket{WINDOW})))",
        "mirror {{stream}}, 95th percentile",
    ),
    Figure(
        ("streamapp_mirror_expired_total",),
        "messages expired in JetStream before they were mirrored: real loss; find out why mirror stood still",
        "Errors, a minute",
        f"60 * sum by (stream) (rate(streamapp_mirror_expired_total{WINDOW}))",
        "expired {{stream}}",
        AlarmRule("MessagesExpired", "> 0", "streamapp_mirror_expired_total > 0", "critical"),
    ),
    Figure(
        ("streamapp_mirror_dead_letters_total", "streamapp_dead_letters_total"),
        "somebody sends what nobody can use (signals are counted by the second one, and their senders are told); "
        "the reason is the label, the messages are listed by `streamapp dead-letters list` (see below)",
        "Errors, a minute",
        f"60 * sum by (reason) (rate(streamapp_mirror_dead_letters_total{WINDOW}) "
        f"or rate(streamapp_dead_letters_total{WINDOW}))",
        "dead letters {{reason}}",
        AlarmRule(
            "DeadLetters",
            "rising",
            f"{rising('streamapp_mirror_dead_letters_total')} or {rising('streamapp_dead_letters_total')}",
        ),
    ),
    Figure(
        ("streamapp_breaker_open",),
        "the account's terminal does not answer, or its clock is off by more than `max_clock_skew_s`: nothing new is "
        "claimed",
        "Terminals",
        'streamapp_breaker_open{account=~"$account"}',
        "{{account}} breaker open",
        AlarmRule("TerminalDoesNotAnswer", "1 for more than 10 s", "streamapp_breaker_open == 1", "critical", "10s"),
    ),
    Figure(
        ('streamapp_submissions{state="unanswered"}',),
        "orders that were claimed and that no report has answered: in doubt until their terminal does",
        "Orders under way",
        'streamapp_submissions{account=~"$account", state="unanswered"}',
        "{{account}} unanswered",
        AlarmRule(
            "OrdersUnanswered", "> 0 for a minute", 'streamapp_submissions{state="unanswered"} > 0', "critical", "1m"
        ),
    ),
    Figure(
        ('streamapp_submissions{state="held"}',),
        "orders that wait for their terminal to be ready; past `not_after` they fail as `not_connected`",
        "Orders under way",
        'streamapp_submissions{account=~"$account", state="held"}',
        "{{account}} held",
        AlarmRule(
            "OrdersHeld",
            "> 0 for 30 s, or as long as `signal_ttl_s` says",
            'streamapp_submissions{state="held"} > 0',
            "critical",
            "30s",
        ),
    ),
    Figure(
        ("streamapp_unsaid_bytes",),
        "what an account has not put into the archive and on NATS yet; beyond 262144 its lane waits",
        "Unsaid",
        'streamapp_unsaid_bytes{account=~"$account"}',
        alarm=AlarmRule(
            "WordsWait", "never 0 for a minute", "min_over_time(streamapp_unsaid_bytes[1m]) > 0", lasting="30s"
        ),
    ),
    Figure(
        ("streamapp_publish_retries_total",),
        "JetStream does not acknowledge in time, or refuses: NATS is slow or away, or `EXECUTION_OUT` is full",
        "Errors, a minute",
        f"60 * sum(rate(streamapp_publish_retries_total{WINDOW}))",
        "published again",
        AlarmRule("PublishRetries", "rising", rising("streamapp_publish_retries_total")),
    ),
    Figure(
        ("streamapp_left_out_total",),
        "`orders.submitted` for a foreign connector that was not published, for its `not_after` was over",
        "Errors, a minute",
        f"60 * sum by (reason) (rate(streamapp_left_out_total{WINDOW}))",
        "left out {{reason}}",
        AlarmRule("MessagesLeftOut", "rising", rising("streamapp_left_out_total")),
    ),
    Figure(
        ("streamapp_outcome_unknown_total", "streamapp_terminal_doubts"),
        "orders of which nobody knows whether they were executed; see below",
        "Doubts",
        'streamapp_terminal_doubts{account=~"$account"}',
        "{{account}} in doubt",
        AlarmRule(
            "OrdersInDoubt",
            "the first rising, or the second > 0",
            f"{rising('streamapp_outcome_unknown_total')} or streamapp_terminal_doubts > 0",
            "critical",
        ),
    ),
    Figure(
        ("streamapp_terminal_suspicions",),
        "doubts that wait for a person; see below",
        "Doubts",
        'streamapp_terminal_suspicions{account=~"$account"}',
        "{{account}} waits for a person",
        AlarmRule("DoubtsWaitForAPerson", "> 0", "streamapp_terminal_suspicions > 0", "critical"),
    ),
    Figure(
        ("streamapp_terminal_halted",),
        "the terminal opens nothing more; see below",
        "Halts",
        'streamapp_terminal_halted{account=~"$account"}',
        "{{account}} by the terminal",
        AlarmRule("TerminalHalted", "1", "streamapp_terminal_halted == 1", "critical"),
    ),
    Figure(
        ("streamapp_account_trading",),
        "whether we open orders on an account: `open`, `not_ready`, `reducing` or `halted`; `GET /accounts` says why",
        "Halts",
        'streamapp_account_trading{account=~"$account", state!="open"}',
        "{{account}} {{state}}",
        AlarmRule(
            "AccountHalted",
            "`halted` or `reducing`",
            'streamapp_account_trading{state=~"halted|reducing"} == 1',
        ),
    ),
    Figure(
        ("streamapp_terminal_late_appearances",),
        "orders that showed at the broker after they had ended as absent, refused or rejected",
        "Doubts",
        'streamapp_terminal_late_appearances{account=~"$account"}',
        "{{account}} appeared late",
        AlarmRule("OrderAppearedLate", "rising", "delta(streamapp_terminal_late_appearances[5m]) > 0", "critical"),
    ),
    Figure(
        ("streamapp_terminal_absent",),
        "orders get lost between terminal and broker: look at the connection",
        "Doubts",
        'streamapp_terminal_absent{account=~"$account"}',
        "{{account}} absent",
        AlarmRule("OrdersGetLost", "more than 3 in 10 minutes", "delta(streamapp_terminal_absent[10m]) > 3"),
    ),
    Figure(
        ("streamapp_terminal_ready",),
        "the reason stands in `/health` of `terminals`, with what to do",
        "Terminals",
        'streamapp_terminal_ready{account=~"$account"}',
        "{{account}} ready",
        AlarmRule("TerminalNotReady", "0 for 30 s", "streamapp_terminal_ready == 0", "critical", "30s"),
    ),
    Figure(
        ("streamapp_terminal_journal_bytes",),
        "the size of the journal's file, which grows as far as `retention.journal_days` of orders need; "
        "`streamapp_terminal_pruned` counts the rows that left it since the process began",
        "Terminals",
        'streamapp_terminal_journal_bytes{account=~"$account"}',
        "{{account}} journal",
    ),
    Figure(
        ("streamapp_terminal_conflicts",),
        "one order id came with two contents: find who else speaks to the terminal",
        "Terminals",
        'streamapp_terminal_conflicts{account=~"$account"}',
        "{{account}} conflicts",
        AlarmRule("TerminalConflict", "> 0", "streamapp_terminal_conflicts > 0", "critical"),
    ),
    Figure(
        ("streamapp_terminal_outbox",),
        "reports that are not confirmed: look at mirror and trading",
        "Outbox of the terminals",
        'streamapp_terminal_outbox{account=~"$account"}',
        alarm=AlarmRule("ReportsWait", "> 1000 for a minute", "streamapp_terminal_outbox > 1000", lasting="1m"),
    ),
    Figure(
        ("streamapp_notifier_given_up_total", "streamapp_notifier_failed_total"),
        "a receiver of notifications takes nothing: given up, nobody was told of an event; failed, it is tried again. "
        "The log of the notifier names the events ([notifications.md](notifications.md))",
        "Errors, a minute",
        f"60 * sum by (receiver) (rate(streamapp_notifier_failed_total{WINDOW}))",
        "not notified {{receiver}}",
        AlarmRule("NobodyWasNotified", "given up, any", rising("streamapp_notifier_given_up_total")),
    ),
    Figure(
        ("streamapp_alarms_total",),
        "a contradiction in an order's facts, or a step of a day's loss; see below",
        "Alarms and breaks",
        f"increase(streamapp_alarms_total{WINDOW})",
        "{{alarm}}",
        AlarmRule("DeskAlarm", "any", rising("streamapp_alarms_total"), "critical"),
    ),
    Figure(
        ("streamapp_breaks_total",),
        "our books and the broker's differ, by kind ([reconciliation.md](reconciliation.md))",
        "Alarms and breaks",
        f"increase(streamapp_breaks_total{WINDOW})",
        "break {{kind}}",
        AlarmRule("BooksDiffer", "any", rising("streamapp_breaks_total"), "critical"),
    ),
    Figure(
        ("streamapp_guard_refusals_total",),
        "signals that a guard of the desk refused, by guard ([guards.md](guards.md)); the sender was told",
        "Guards",
        f"increase(streamapp_guard_refusals_total{WINDOW})",
        "{{guard}}",
        AlarmRule("GuardRefusals", "rising", rising("streamapp_guard_refusals_total")),
    ),
    Figure(
        ("streamapp_day_steps_total",),
        "an account has used 80 % of a day's loss or drawdown limit, or more: `warned`, `reducing`, `locked`",
        "Guards",
        f"increase(streamapp_day_steps_total{WINDOW})",
        "day {{step}}",
        AlarmRule("DayLimitNear", "any", rising("streamapp_day_steps_total"), "critical"),
    ),
    Figure(
        ("streamapp_lag_seconds",),
        "of the warehouse: ClickHouse is slow or away",
        "Lag",
        "streamapp_lag_seconds",
        "warehouse {{topic}}",
        AlarmRule("WarehouseBehind", "> 10", "streamapp_lag_seconds > 10"),
    ),
    Figure(
        ("streamapp_faust_behind",),
        "records of a partition that its worker has not taken yet; of the warehouse while ClickHouse is slow",
        "Records not taken yet",
        "sum by (topic) (streamapp_faust_behind)",
        "{{topic}}",
        AlarmRule(
            "WorkerBehind", "> 1000 for a minute", "sum by (topic) (streamapp_faust_behind) > 1000", "warning", "1m"
        ),
    ),
    Figure(
        ("streamapp_faust_rebalances_total", "streamapp_faust_commit_seconds", "streamapp_faust_buffer_full_total"),
        "Faust's own: rebalances, the last commit of offsets, how often a topic's buffer was full",
        "Rebalances",
        f"increase(streamapp_faust_rebalances_total{WINDOW})",
        "{{job}} {{instance}}",
        AlarmRule("ManyRebalances", "more than 5 in 10 minutes", "increase(streamapp_faust_rebalances_total[10m]) > 5"),
    ),
)


def table() -> str:
    """Return the table of docs/operations.md."""
    rows = ["| metric | alarm when | what it means |", "|---|---|---|"]
    for figure in FIGURES:
        names = ", ".join(f"`{name}`" for name in figure.metrics)
        rows.append(f"| {names} | {figure.alarm.when if figure.alarm else ''} | {figure.meaning} |")
    return "\n".join(rows) + "\n"


def alarm_table(meanings: Mapping[str, AlarmMeaning]) -> str:
    """Return a table of the desk's alarms."""
    rows = (f"| `{name}` | {means.meaning} | {means.todo} |" for name, means in meanings.items())
    return "\n".join(("| alarm | meaning | what to do |", "|---|---|---|", *rows)) + "\n"
