"""Messaging over a grid that a test plays: time limits, nodes that end and come back or have no name."""

from types import SimpleNamespace

import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flwr.app import ConfigRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from skinfl.flower.coordinator import grid_messaging
from skinfl.flower.coordinator.grid_messaging import GridMessaging
from skinfl.flower.coordinator.messaging import NoAnswer, Request


class FakeGrid:
    """Nodes that answer when ``react(grid, message)`` returns bytes, an error code, or nothing."""

    def __init__(self, nodes, react):
        self.nodes = dict(nodes)  # number: (name, when it connected)
        self.react = react
        self.sent = []
        self.pulls = 0

    def get_nodes(self):
        return [
            SimpleNamespace(node_id=number, name=name, last_activated_at=at)
            for number, (name, at) in self.nodes.items()
        ]

    def push_messages(self, messages):
        start = len(self.sent)
        self.sent += messages
        return [str(i) for i in range(start, len(self.sent))]

    def pull_messages(self, ids):
        self.pulls += 1
        found = []
        for i in ids:
            said = self.react(self, self.sent[int(i)])
            if said is not None:
                found.append(answer(i, self.sent[int(i)], said))
        return found

    def send_and_receive(self, messages, timeout):
        return self.pull_messages(self.push_messages(messages))


def answer(number, message, said):
    failed = isinstance(said, int)
    content = (
        None if failed or isinstance(said, dict) else RecordDict({"answer": ConfigRecord({"body": said})})
    )
    if isinstance(said, dict):
        content = RecordDict({"answer": ConfigRecord(said)})
    return SimpleNamespace(
        metadata=SimpleNamespace(reply_to_message_id=number, src_node_id=message.metadata.dst_node_id),
        has_error=lambda: failed,
        error=SimpleNamespace(code=said, reason=f"error {said}") if failed else None,
        content=content,
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):  # what a process of Flower is told at its start
        monkeypatch.setattr(TaskIdentity, name, 1)
    for name, seconds in (("_POLL_SECONDS", 0.001), ("_LOOK_SECONDS", 0.003)):
        monkeypatch.setattr(grid_messaging, name, seconds)


def test_an_answer_of_another_form_is_none(capsys):
    def react(grid, message):
        return {"node 1": {}, "node 2": {"body": "text"}}.get(f"node {message.metadata.dst_node_id}")

    found = ask(FakeGrid({1: ("a", "t"), 2: ("b", "t")}, react))
    assert {str(reply) for reply in found.values()} == {"a sent no answer", "b sent no answer"}


def ask(grid, names=("a", "b"), timeout=0.5, **options):
    requests = {name: Request(name.encode(), b"model") for name in names}
    return dict(GridMessaging(grid, ("x", "y"), 0.2).ask("train", 3, requests, timeout, **options))


def connect_at_look(grid, count):
    """Let node 2 connect when the grid is asked for nodes the ``count``-th time."""
    looks, nodes = [], grid.get_nodes

    def get_nodes():
        looks.append(1)
        if len(looks) == count:
            grid.nodes[2] = ("b", "1")
        return nodes()

    grid.get_nodes = get_nodes


def test_answers_come_by_name_and_messages_carry_kind_and_round():
    grid = FakeGrid({1: ("a", "0"), 2: ("b", "0")}, lambda grid, m: m.content["request"]["body"] + b"!")
    assert ask(grid) == {"a": b"a!", "b": b"b!"}
    assert {m.metadata.message_type for m in grid.sent} == {"query.train"}
    assert {m.metadata.group_id for m in grid.sent} == {"3"}
    assert all(m.content["server"]["body"] == b"model" and m.metadata.ttl == 0.5 for m in grid.sent)


def test_one_that_never_answers_costs_the_time_limit_and_no_more():
    grid = FakeGrid(
        {1: ("a", "0"), 2: ("b", "0")}, lambda grid, m: b"x" if m.metadata.dst_node_id == 1 else None
    )
    found = ask(grid, timeout=0.1)
    assert found["a"] == b"x"
    assert isinstance(found["b"], NoAnswer)
    assert "b did not answer within" in str(found["b"])


def test_one_that_is_not_connected_is_not_waited_for_unless_it_must_be():
    grid = FakeGrid({1: ("a", "0")}, lambda grid, m: b"x")
    found = ask(grid)
    assert str(found["b"]) == "b is not connected"
    assert len(grid.sent) == 1

    grid = FakeGrid({1: ("a", "0")}, lambda grid, m: b"x")
    connect_at_look(grid, 3)
    assert ask(grid, insist=True) == {"a": b"x", "b": b"x"}


def test_one_that_comes_back_is_asked_again():
    def restart(grid, message):
        if message.metadata.dst_node_id == 1:
            return b"x"
        if grid.nodes[2][1] == "0":
            if grid.pulls > 3:
                grid.nodes[2] = ("b", "1")
            return None
        return b"y" if message is not grid.sent[1] else None  # the restarted node has forgotten that one

    grid = FakeGrid({1: ("a", "0"), 2: ("b", "0")}, restart)
    assert ask(grid) == {"a": b"x", "b": b"y"}
    assert [m.metadata.dst_node_id for m in grid.sent] == [1, 2, 2]


def test_one_whose_connection_is_lost_may_come_back_for_a_while():
    def lose(grid, message):
        if message is grid.sent[0]:
            grid.nodes.clear()
            return 5
        return b"y"

    grid = FakeGrid({2: ("b", "0")}, lose)
    assert str(ask(grid, ("b",))["b"]) == "b lost its connection"
    grid = FakeGrid({2: ("b", "0")}, lose)
    connect_at_look(grid, 4)
    assert ask(grid, ("b",)) == {"b": b"y"}
    grid = FakeGrid({2: ("b", "0")}, lose)
    assert "did not answer" in str(ask(grid, ("b",), timeout=0.15, insist=True)["b"])


def test_other_errors_are_passed_on():
    grid = FakeGrid({1: ("a", "0")}, lambda grid, m: 7)
    assert str(ask(grid, ("a",))["a"]) == "a: error 7"


def test_connected_waits_for_those_wanted_and_gives_up():
    grid = FakeGrid({1: ("a", "0")}, lambda grid, m: b"x")
    messaging = GridMessaging(grid, (), 0.05)
    assert messaging.connected(("a",), 0.0) == ("a",)
    assert messaging.connected(("b", "a"), 0.02) == ("a",)


def test_nodes_without_a_registered_name_are_asked_for_it():
    def introduce(grid, message):
        assert message.metadata.message_type == "query.who"
        return {1: {"place": 1}, 2: {"name": "z"}, 3: 2}[message.metadata.dst_node_id]

    grid = FakeGrid({1: ("", "0"), 2: ("", "0"), 3: ("", "0")}, introduce)
    assert GridMessaging(grid, ("x", "y"), 0.05).connected(("x", "y", "z"), 0.0) == ("y", "z")
