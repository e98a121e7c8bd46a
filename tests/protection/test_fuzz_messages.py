"""Messages cut, flipped, swapped and replayed: each is refused by name or opens to the right sum."""

import numpy as np
import pytest
from comparison import assert_close, built, protections
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import combine, hospitals, needs_releases, vectors

from skinfl.errors import MessageError, ProtectionError, SkinflError
from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout, Segment

SMALL = Layout([Segment("w", 5), Segment("n", 1, "count")])


class Federation:
    """A federation of three hospitals with genuine messages of two rounds to tamper with."""

    def __init__(self, protection):
        self.protection = protection
        self.roles = protection.setup(hospitals(3))
        self.values = vectors(3, SMALL)
        self.round = 0
        self.old = self.messages()

    def messages(self):
        """Genuine messages of a new round, as a list of (party, message)."""
        self.round += 1
        self.exchange = Exchange("run", self.round, SMALL)
        self.protected = {
            name: side.protect(self.values[name], self.exchange)
            for name, side in self.roles.hospitals.items()
        }
        return [item for sent in self.protected.values() for item in sent.messages.items()]

    def deliver(self, messages):
        """Hand over messages; return the opened sum and the senders that each party took."""
        taken = {party: set() for party in self.roles.aggregators}
        for party, message in messages:
            try:
                taken[party].add(self.roles.aggregators[party].receive(message, self.exchange))
            except MessageError as error:
                assert error.sender and error.reason
        senders = sorted(set.intersection(*taken.values()))
        if len(senders) < 2:
            return None, senders
        if len(senders) < 3 and needs_releases(self.roles):
            for side in self.roles.aggregators.values():
                with pytest.raises(ProtectionError, match="do not cancel"):
                    side.combine(senders, self.exchange)
            return None, senders
        return combine(self.roles, self.protected, senders, self.exchange), senders

    def expect(self, total, senders):
        vectors = [self.values[name] for name in senders]
        assert_close(self.protection, total, np.sum(vectors, axis=0, dtype=np.float64), vectors)


@pytest.fixture(scope="module", params=protections())
def federation(request):
    return Federation(built(request.param))


def tamper(data, message, others):
    """Cut, lengthen, flip a bit in, overwrite, splice or swap a message."""
    kind = data.draw(st.sampled_from(["cut", "lengthen", "flip", "overwrite", "splice", "swap", "rubbish"]))
    if kind == "swap":
        return data.draw(st.sampled_from(others))
    if kind == "rubbish":
        return data.draw(st.binary(max_size=60))
    at = data.draw(st.integers(0, 10**6 - 1)) * len(message) // 10**6  # lengths differ from run to run
    if kind == "cut":
        return message[:at]
    if kind == "lengthen":
        return message + data.draw(st.binary(min_size=1, max_size=9))
    if kind == "flip":
        bit = 1 << data.draw(st.integers(0, 7))
        return message[:at] + bytes(b ^ bit for b in message[at : at + 1]) + message[at + 1 :]
    if kind == "overwrite":
        new = data.draw(st.binary(min_size=1, max_size=12))
        return message[:at] + new + message[at + len(new) :]
    other = data.draw(st.sampled_from(others))
    return message[:at] + other[at:]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_updates(federation, data):
    genuine = federation.messages()
    pool = [message for _, message in genuine + federation.old]
    sent = list(genuine)
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(sent) - 1))
        sent[i] = sent[i][0], tamper(data, sent[i][1], pool)
    sent += data.draw(st.lists(st.sampled_from(genuine + federation.old), max_size=3))  # replays
    combined, senders = federation.deliver(data.draw(st.permutations(sent)))
    if combined is None:
        return
    opened = federation.roles.opener.open(combined, federation.exchange)
    assert list(opened.senders) == senders
    federation.expect(opened.total, senders)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_sums(federation, data):
    before, _ = federation.deliver(federation.messages())
    combined, senders = federation.deliver(federation.messages())
    pool = [*before.values(), *combined.values()]
    party = data.draw(st.sampled_from(sorted(combined)))
    changed = {**combined, party: tamper(data, combined[party], pool)}
    try:
        opened = federation.roles.opener.open(changed, federation.exchange)
    except ProtectionError as error:
        assert isinstance(error, SkinflError) and "\n" not in str(error)
        return
    assert list(opened.senders) == senders
    federation.expect(opened.total, senders)
