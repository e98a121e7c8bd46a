"""An honest coordinator that dies between two lines, and is started again: still one sum a round."""

from __future__ import annotations

from itertools import combinations

import pytest
from attacks import broken, may_be_refused, reveals, succeeded_if
from flower_helpers import HOSPITALS, LocalMessaging, coordinator_of, settings_of
from hostile_coordinator import RemoteTransport

from skinfl.errors import SkinflError


class PowerCut(BaseException):
    """The coordinator's machine goes off; nothing in the package catches it."""


class Opened:
    """Every sum that is opened: (round, senders, total); the power goes after that of round ``die``."""

    def __init__(self, patch):
        self.sums = []
        self.die = None
        original = RemoteTransport.open

        def open(transport, combined, exchange):
            opened = original(transport, combined, exchange)
            self.sums.append((exchange.round, opened.senders, opened.total))
            if exchange.round == self.die:
                raise PowerCut
            return opened

        patch.setattr(RemoteTransport, "open", open)

    def of(self, round):
        """Return the senders of each sum of a round, in order."""
        return [senders for at, senders, _ in self.sums if at == round]


@pytest.fixture
def opened(monkeypatch):
    return Opened(monkeypatch)


def single_updates(opened, contributions):
    """Return (hospital, round) of each contribution that is the difference of two opened sums of a round."""
    found = set()
    for (round, senders, total), (other, fewer, rest) in combinations(opened.sums, 2):
        alone = set(senders) ^ set(fewer)
        if round == other and len(alone) == 1 and total.shape == rest.shape:
            name = alone.pop()
            difference = total - rest if name in senders else rest - total
            if any(reveals(difference, secret) for secret in contributions.all(name, round)):
                found.add((name, round))
    return sorted(found)


def cut_off(hospitals, settings, opened, out, post, round):
    """Run until the power goes, right after the sum of ``round`` was opened."""
    opened.die = round
    with pytest.raises(PowerCut):
        coordinator_of(*hospitals, settings, post, out).run(HOSPITALS)
    opened.die = None
    assert len(opened.of(round)) == 1


@broken("hospitals open a second sum of a round after a crash, if others have come back meanwhile")
@pytest.mark.parametrize("scheme", ["ckks-vector", "bfv"])
def test_encrypted_sums_of_a_round_that_is_resumed_with_more_hospitals(
    hospitals, contributions, opened, tmp_path, scheme
):
    pytest.importorskip("tenseal")
    settings = settings_of(protection="he", he_scheme=scheme, strategy="fedavg")
    post = LocalMessaging(hospitals.folder)
    post.tamper = lambda kind, round, name, request, answer: (
        None if (kind, round, name) == ("train", 2, "hospital-3") else answer
    )
    cut_off(hospitals, settings, opened, tmp_path / "out", post, 2)
    assert opened.of(2) == [HOSPITALS[:2]]
    again = LocalMessaging(hospitals.folder)
    with may_be_refused():
        coordinator_of(*hospitals, settings, again, tmp_path / "out", resume=True).run(HOSPITALS)
    loot = single_updates(opened, contributions)
    succeeded_if(bool(loot), f"single updates, as the difference of two sums: {loot}")


@broken("before the first checkpoint a resumed run starts anew over fewer hospitals, with the same seed")
@pytest.mark.parametrize("protection", ["smpc", "he"])
@pytest.mark.parametrize("round", [0, 1])
def test_sums_of_a_run_that_is_resumed_before_its_first_checkpoint(
    hospitals, contributions, opened, tmp_path, protection, round
):
    if protection == "he":
        pytest.importorskip("tenseal")
    settings = settings_of(protection=protection, strategy="fedavg", class_weights="none")
    cut_off(hospitals, settings, opened, tmp_path / "out", LocalMessaging(hospitals.folder), round)
    post = LocalMessaging(hospitals.folder)
    post.away = {"hospital-3"}
    with may_be_refused():
        coordinator_of(*hospitals, settings, post, tmp_path / "out", resume=True).run(HOSPITALS)
    loot = single_updates(opened, contributions)
    succeeded_if(bool(loot), f"single contributions, as the difference of two sums: {loot}")


def test_a_run_that_is_resumed_with_the_same_hospitals_goes_on(hospitals, contributions, opened, tmp_path):
    """What the tests above presuppose: resuming works, and by itself reveals nothing."""
    settings = settings_of(protection="smpc", strategy="fedavg")
    cut_off(hospitals, settings, opened, tmp_path / "out", LocalMessaging(hospitals.folder), 2)
    try:
        post = LocalMessaging(hospitals.folder)
        coordinator_of(*hospitals, settings, post, tmp_path / "out", resume=True).run(HOSPITALS)
    except SkinflError as error:
        raise AssertionError("an honest run does not resume") from error
    assert set(opened.of(2)) == {HOSPITALS}
    assert single_updates(opened, contributions) == []
