"""Messaging over Flower's grid: names for node numbers, time limits, and nodes that come back."""

from __future__ import annotations

import time
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from skinfl.errors import printable
from skinfl.flower import protocol
from skinfl.flower.coordinator.messaging import Messaging, NoAnswer, Reply, Request

#: a simulation may take minutes to get going
_WHO_SECONDS = 300.0
_POLL_SECONDS = 0.25
#: how often the grid is asked which nodes are connected
_LOOK_SECONDS = 2.0
#: Flower's code for a node that is not connected
_NODE_UNAVAILABLE = 5


class _Sent(NamedTuple):
    """A request on its way: to whom, and when that node had connected."""

    name: str
    node: int
    connected_at: str


class GridMessaging(Messaging):
    """Carries requests over ``grid``.

    ``hospitals`` are the names by their place in a simulation. One that loses its connection has
    ``return_timeout`` seconds to come back: a service manager restarts it.
    """

    def __init__(self, grid: Grid, hospitals: Sequence[str], return_timeout: float):
        self._grid = grid
        self._return_timeout = return_timeout
        self._hospitals = tuple(hospitals)
        self._names: Dict[int, str] = {}

    def connected(self, wanted: Sequence[str], patience: float) -> Tuple[str, ...]:
        deadline = time.monotonic() + patience
        while True:
            found = self._nodes()
            if set(wanted) <= set(found) or time.monotonic() > deadline:
                return tuple(name for name in wanted if name in found)
            time.sleep(_POLL_SECONDS)

    def ask(
        self,
        kind: str,
        round: int,
        requests: Mapping[str, Request],
        timeout: float,
        *,
        insist: bool = False,
    ) -> Iterator[Tuple[str, Reply]]:
        deadline = time.monotonic() + timeout
        nodes = self._nodes()
        waiting = dict(requests)
        for name in [name for name in requests if name not in nodes and not insist]:
            del waiting[name]
            yield name, NoAnswer(f"{name} is not connected")
        sent = self._send(kind, round, {n: waiting[n] for n in waiting if n in nodes}, nodes, timeout)
        gone: Dict[str, float] = {}  # until when each may come back
        looked = time.monotonic()
        while waiting and time.monotonic() < deadline:
            for name, reply in self._collect(sent, waiting):
                if reply is None:
                    gone[name] = time.monotonic() + self._return_timeout
                else:
                    del waiting[name]
                    yield name, reply
            now = time.monotonic()
            if now - looked > _LOOK_SECONDS:
                looked, nodes = now, self._nodes()
                again = self._lost(waiting, sent, nodes)
                sent.update(self._send(kind, round, {n: waiting[n] for n in again}, nodes, deadline - now))
                gone = {name: until for name, until in gone.items() if name in waiting and name not in nodes}
            for name in [name for name, until in gone.items() if now > until and not insist]:
                del waiting[name], gone[name]
                yield name, NoAnswer(f"{name} lost its connection")
            time.sleep(_POLL_SECONDS)
        for name in waiting:
            yield name, NoAnswer(f"{name} did not answer within {timeout:.0f} s")

    def _collect(
        self, sent: Dict[str, _Sent], waiting: Mapping[str, Request]
    ) -> List[Tuple[str, Optional[Reply]]]:
        """Return the answers that are there; None for a hospital that is not connected any more."""
        found: List[Tuple[str, Optional[Reply]]] = []
        for message in self._grid.pull_messages([m for m, s in sent.items() if s.name in waiting]):
            name = sent.pop(message.metadata.reply_to_message_id).name
            if not message.has_error():
                body = _entry(message, "body")
                found.append((name, body if isinstance(body, bytes) else NoAnswer(f"{name} sent no answer")))
            elif message.error.code == _NODE_UNAVAILABLE:
                found.append((name, None))
            else:
                found.append((name, NoAnswer(f"{name}: {printable(message.error.reason, 500)}")))
        return found

    def _lost(
        self, waiting: Mapping[str, Request], sent: Mapping[str, _Sent], nodes: Mapping[str, Tuple[int, str]]
    ) -> List[str]:
        """Return who is connected and has nothing to answer: it came back, or has connected just now.

        A node forgets a message it was working on when it is restarted, so that has to be sent again.
        """
        busy = {s.name for s in sent.values() if nodes.get(s.name) == (s.node, s.connected_at)}
        return [name for name in waiting if name in nodes and name not in busy]

    def _send(
        self,
        kind: str,
        round: int,
        requests: Mapping[str, Request],
        nodes: Mapping[str, Tuple[int, str]],
        ttl: float,
    ) -> Dict[str, _Sent]:
        """Send requests and return them by message number. Equal model states travel once."""
        messages, sent = [], []
        for name, request in requests.items():
            content = RecordDict(
                {
                    "request": ConfigRecord({"body": request.body}),
                    "server": ConfigRecord({"body": request.server}),
                }
            )
            node, connected_at = nodes[name]
            messages.append(
                Message(content, dst_node_id=node, message_type=f"query.{kind}", ttl=ttl, group_id=str(round))
            )
            sent.append(_Sent(name, node, connected_at))
        if not messages:
            return {}
        return dict(zip(self._grid.push_messages(messages), sent))

    def _nodes(self) -> Dict[str, Tuple[int, str]]:
        """Return the connected nodes by hospital: their number, and when they connected."""
        nodes = list(self._grid.get_nodes())
        for node in nodes:
            if node.node_id not in self._names and node.name:
                self._names[node.node_id] = node.name
        unknown = [node.node_id for node in nodes if node.node_id not in self._names]
        if unknown:
            self._names.update(self._introduce(unknown))
        return {
            self._names[node.node_id]: (node.node_id, node.last_activated_at)
            for node in nodes
            if node.node_id in self._names
        }

    def _introduce(self, nodes: Sequence[int]) -> Dict[int, str]:
        """Ask nodes that were registered without a name who they are; in a simulation all are."""
        messages = [
            Message(RecordDict(), dst_node_id=node, message_type=f"query.{protocol.WHO}", ttl=_WHO_SECONDS)
            for node in nodes
        ]
        found: Dict[int, str] = {}
        for message in self._grid.send_and_receive(messages, timeout=_WHO_SECONDS):
            if message.has_error():
                continue
            place, name = _entry(message, "place"), _entry(message, "name")
            if isinstance(place, int):
                name = self._hospitals[place % len(self._hospitals)]
            if isinstance(name, str):
                found[message.metadata.src_node_id] = name
        return found


def _entry(message: Message, name: str) -> object:
    """Return what a node's answer says under ``name``; None where it has nothing of the kind."""
    answer = message.content.get("answer")
    return answer.get(name) if isinstance(answer, ConfigRecord) else None
