"""What of the settings a desk's decisions depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from streamapp.domain.limits import AccountLimits
from streamapp.domain.signals import Rules
from streamapp.settings import ExecutionSettings, Role, Settings

FOREIGN = "foreign"
"""The executor of an order that somebody else's connector is to send."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of a deployment, as the desk needs them.

    ``executor`` is who executes the orders it makes; ``limits`` are the file's, by account. A row
    that is over stays as it is for ``closed_for``, and at all for ``rules.remembered_s``.
    """

    deployment: str
    role: Role
    executor: str
    partitions: int
    max_skew: timedelta
    rules: Rules
    execution: ExecutionSettings
    limits: Mapping[str, AccountLimits] = field(default_factory=dict)
    closed_for: timedelta = timedelta(days=30)
    topic_prefix: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Return the policy of ``settings``."""
        execution = settings.execution
        rules = Rules(
            accounts=frozenset(settings.accounts),
            needs_approval=execution.approval == "payload",
            ttl_s=execution.signal_ttl_s,
            skew_s=execution.max_clock_skew_s,
            remembered_s=settings.retention.keys_s,
            sizings={name: account.sizing for name, account in settings.accounts.items()},
        )
        return cls(
            deployment=settings.deployment,
            role=settings.role,
            executor=settings.deployment if settings.is_executor else FOREIGN,
            partitions=settings.kafka.partitions,
            max_skew=timedelta(seconds=execution.max_clock_skew_s),
            # An execution service's order was approved, and has got its volume, where it was made.
            rules=replace(rules, needs_approval=False, sizings={}) if settings.role == "connector" else rules,
            execution=execution,
            limits={name: settings.limits_of(name) for name in settings.accounts},
            closed_for=timedelta(days=settings.retention.closed_days),
            topic_prefix=settings.kafka.topic_prefix,
        )

    @property
    def executes(self) -> bool:
        """Whether the terminals are ours."""
        return self.executor != FOREIGN

    @property
    def owns_orders(self) -> bool:
        """Whether orders and positions are ours to publish; a connector's are its execution service's."""
        return self.role != "connector"
