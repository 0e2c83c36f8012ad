"""Every stream and key name, in one place.

On a Redis Cluster all keys must live on one node: a ``tag`` such as ``{gw}`` in front of each name does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROUP: Final = "workers"
"""The consumer group of the worker pool on the request stream."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of streams and keys, with an optional hash tag in front."""

    tag: str = ""

    # streams
    @property
    def requests(self) -> str:
        """Signed envelopes wait here for a worker."""
        return f"{self.tag}model.requests"

    @property
    def dead(self) -> str:
        """Envelopes that no worker may run, with the reason."""
        return f"{self.tag}model.requests.dead"

    @property
    def control(self) -> str:
        """Cancellations, read by every worker."""
        return f"{self.tag}model.control"

    @property
    def events(self) -> str:
        """What happened, one entry an event: the ledger's journal."""
        return f"{self.tag}agent.events"

    def replies(self, sender: str) -> str:
        """The reply stream of a sender, ``http-<instance>`` or ``agent-<name>``."""
        return f"{self.tag}model.replies.{sender}"

    def ingress(self, agent: str) -> str:
        """The only stream that an isolated agent may write."""
        return f"{self.tag}model.ingress.{agent}"

    def ingress_state(self, agent: str) -> str:
        """Whose turn it is at an ingress, and what was taken off it in this minute: a hash with a TTL."""
        return f"{self.tag}gw:ingress:{agent}"

    def unfinished(self, agent: str) -> str:
        """Ids of an isolated agent's requests that were moved and may not be over: a set with a TTL."""
        return f"{self.tag}gw:ingress:{agent}:unfinished"

    # state
    def record(self, principal: str, request_id: str) -> str:
        """One request's state: a hash with a TTL."""
        return f"{self.tag}gw:req:{principal}:{request_id}"

    def deployment(self, name: str) -> str:
        """One deployment's circuit breaker and rates, kept for all workers: a hash with a TTL."""
        return f"{self.tag}gw:deployment:{name}"

    @property
    def open(self) -> str:
        """Open reservations: ``<principal>:<id>`` to ``<token>|<window>|<nano-dollars>|<scopes>|<attempt>``."""
        return f"{self.tag}gw:open"

    @property
    def ledger(self) -> str:
        """Budgets: fields ``<scope>|<window>|settled``, ``reserved``, ``overrun``, ``warned``."""
        return f"{self.tag}gw:ledger"

    @property
    def spend(self) -> str:
        """Settled nano-dollars, requests and tokens by model: fields ``<window>|<what>|<model>``."""
        return f"{self.tag}gw:spend"

    @property
    def counters(self) -> str:
        """The published metrics, counted inside the scripts."""
        return f"{self.tag}gw:counters"

    @property
    def epoch(self) -> str:
        """Says that the ledger is whole; without it nothing is admitted."""
        return f"{self.tag}gw:epoch"

    @property
    def server(self) -> str:
        """The run id of the server that the ledger was last held against: another one may have lost something."""
        return f"{self.tag}gw:epoch:server"

    @property
    def reconciled(self) -> str:
        """Events that Redis had lost and that were dealt with, by id: a hash with a TTL."""
        return f"{self.tag}gw:reconciled"

    @property
    def full(self) -> str:
        """Set while the streams are past their byte budget."""
        return f"{self.tag}gw:full"

    @property
    def insights(self) -> str:
        """Where the insights process is: JSON, for a few seconds."""
        return f"{self.tag}gw:insights"

    @property
    def workers(self) -> str:
        """Heartbeats: a worker's name to its JSON state."""
        return f"{self.tag}gw:workers"
