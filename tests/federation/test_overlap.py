"""The next hospital trains while the last one's update is protected."""

from __future__ import annotations

import threading

import pytest
from samples import toy_dataset

from skinfl.assembly import assemble, share_out
from skinfl.errors import ProtectionError, TrainingError
from skinfl.federation.hospital import HospitalAgent
from skinfl.federation.transport import LocalTransport
from skinfl.settings import Settings

SETTINGS = Settings(
    hospitals=4,
    rounds=2,
    local_epochs=1,
    image_size=12,
    augment=False,
    protection="smpc",
    strategy="scaffold",
)


def assembled():
    return assemble(SETTINGS, share_out(SETTINGS, toy_dataset(160)))


def in_turn(self, task):
    """Train and protect one hospital after the other."""
    for name in task.participants:
        self._train[name].ask("train", task)
        yield name, self._agents[name].protect_trained()


def finish(assembly):
    for _ in assembly.federation.run():
        pass
    return assembly.federation.state


def test_overlapping_gives_what_taking_turns_gives(monkeypatch):
    overlapped = finish(assembled())
    monkeypatch.setattr(LocalTransport, "train", in_turn)
    turns = finish(assembled())
    assert (overlapped.server.model == turns.server.model).all()
    for one, other in zip(overlapped.records, turns.records):
        assert one.metrics == other.metrics and one.train_loss == other.train_loss
        assert one.trained == other.trained and one.max_abs_difference_from_plaintext_sum < 1e-3


def test_training_goes_on_while_an_update_is_protected(monkeypatch):
    """The first hospital's protection ends only when the second one trains: in turn, none would end."""
    second_trains = threading.Event()
    compute, protect = HospitalAgent.compute, HospitalAgent.protect_trained
    names, threads = [], set()

    def computing(self, *args, **others):
        names.append(self.name)
        if len(names) == 2:
            second_trains.set()
        return compute(self, *args, **others)

    def protecting(self):
        threads.add(threading.current_thread())
        assert second_trains.wait(30), "nobody trains while an update is protected"
        return protect(self)

    monkeypatch.setattr(HospitalAgent, "compute", computing)
    monkeypatch.setattr(HospitalAgent, "protect_trained", protecting)
    state = finish(assembled())
    assert len(state.records) == 2 and threading.current_thread() not in threads
    assert all(record.seconds.protect > 0 and record.seconds.train > 0 for record in state.records)


@pytest.mark.parametrize("half", ["compute", "protect_trained"])
@pytest.mark.parametrize("which", [0, 1, 3])
def test_an_error_is_one_hospitals_own(monkeypatch, half, which):
    original = getattr(HospitalAgent, half)
    hospitals = assembled().transport.hospitals
    bad = hospitals[which]
    kind = TrainingError if half == "compute" else ProtectionError

    def failing(self, *args, **others):
        if self.name == bad:
            raise kind(f"{bad} is ill")
        return original(self, *args, **others)

    monkeypatch.setattr(HospitalAgent, half, failing)
    for record in finish(assembled()).records:
        assert record.left_out == {bad: f"{bad} is ill"}
        assert set(record.trained) == set(hospitals) - {bad}


def test_protecting_without_training_is_refused():
    agent = next(iter(assembled().transport._agents.values()))
    with pytest.raises(ProtectionError, match="has trained nothing"):
        agent.protect_trained()


def test_who_stops_listening_leaves_no_thread():
    assembly = assembled()
    before = threading.active_count()
    events = assembly.federation.run()
    for event in events:
        if type(event).__name__ == "HospitalTrained":
            break
    events.close()
    assert threading.active_count() == before
