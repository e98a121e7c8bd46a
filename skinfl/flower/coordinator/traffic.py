"""What a run sends, counted where it passes: at the coordinator."""

from __future__ import annotations

import time
from typing import Any, Dict, Iterator, Mapping, Sequence, Tuple

from skinfl.flower.coordinator.messaging import Messaging, Reply, Request


class CountedMessaging(Messaging):
    """A messaging that counts messages, bytes and seconds by kind of request, as hospitals see them.

    A model state that goes to ten hospitals counts ten times, though Flower keeps it once.
    """

    def __init__(self, messaging: Messaging):
        self._messaging = messaging
        self.kinds: Dict[str, Dict[str, Any]] = {}

    def connected(self, wanted: Sequence[str], patience: float) -> Tuple[str, ...]:
        return self._messaging.connected(wanted, patience)

    def ask(
        self,
        kind: str,
        round: int,
        requests: Mapping[str, Request],
        timeout: float,
        *,
        insist: bool = False,
    ) -> Iterator[Tuple[str, Reply]]:
        before = {"exchanges": 0, "messages": 0, "bytes_down": 0, "bytes_up": 0, "seconds": 0.0}
        counts = self.kinds.setdefault(kind, before)
        counts["exchanges"] += 1
        counts["messages"] += len(requests)
        counts["bytes_down"] += sum(len(r.body) + len(r.server) for r in requests.values())
        started = time.perf_counter()
        for name, reply in self._messaging.ask(kind, round, requests, timeout, insist=insist):
            if isinstance(reply, bytes):
                counts["bytes_up"] += len(reply)
            yield name, reply
        counts["seconds"] += time.perf_counter() - started
