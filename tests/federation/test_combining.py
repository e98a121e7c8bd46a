"""Adding at parties whose hospitals' masks must cancel: the whole cohort, or a smaller one's next attempt."""

import numpy as np
import pytest

from skinfl.federation.transport import combine_at_parties
from skinfl.protection import build_protection
from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout, Segment

NAMES = ("north", "south", "west")
LAYOUT = Layout([Segment("w", 4), Segment("n", 1, "count")])
EXCHANGE = Exchange("run", 1, LAYOUT, "task", "base", cohort=NAMES)


class Hospitals:
    """Hospitals that protect ones for any cohort; ``gone`` answer nothing more."""

    def __init__(self, protection):
        self.roles = build_protection(protection).setup(NAMES)
        self.gone = set()
        self.asked = []
        self._releases = {}

    def protect(self, exchange):
        self.asked.append(exchange)
        made = {
            name: self.roles.hospitals[name].protect(np.ones(5), exchange)
            for name in exchange.cohort
            if name not in self.gone
        }
        self._releases = {name: protected.release for name, protected in made.items()}
        return {name: protected.messages for name, protected in made.items()}

    def release(self, exchange):
        return {name: release for name, release in self._releases.items() if name not in self.gone}

    def combine(self, messages, least=2):
        return combine_at_parties(
            self.roles.aggregators, messages, EXCHANGE, least, self.protect, self.release
        )


@pytest.fixture(params=["he", "smpc", "plaintext"])
def hospitals(request):
    if request.param == "he":
        pytest.importorskip("tenseal")
    return Hospitals(request.param)


def test_a_whole_cohort_is_added_at_once(hospitals):
    combined = hospitals.combine(hospitals.protect(EXCHANGE))
    assert (combined.senders, combined.refused, len(hospitals.asked)) == (NAMES, {}, 1)
    assert hospitals.roles.opener.open(combined.messages, combined.exchange).total.tolist() == [3.0] * 5


@pytest.mark.parametrize("message", [b"rubbish", None], ids=["refused", "missing"])
def test_who_is_left_adds_up(hospitals, message):
    messages = hospitals.protect(EXCHANGE)
    if message is None:
        del messages["south"]
    else:
        messages["south"] = dict.fromkeys(messages["south"], message)
    combined = hospitals.combine(messages)
    assert combined.senders == ("north", "west")
    assert set(combined.refused) == ({"south"} if message else set())
    opened = hospitals.roles.opener.open(combined.messages, combined.exchange)
    assert (opened.senders, opened.total.tolist()) == (("north", "west"), [2.0] * 5)
    masked = any(side.releases for side in hospitals.roles.aggregators.values())
    assert [exchange.attempt for exchange in hospitals.asked] == ([0, 1] if masked else [0])
    assert combined.exchange.cohort == (("north", "west") if masked else NAMES)


@pytest.fixture
def masked():
    pytest.importorskip("tenseal")
    return Hospitals("he")


def test_a_cohort_that_shrinks_again_and_again_ends_without_a_sum(masked):
    messages = masked.protect(EXCHANGE)
    del messages["south"]
    masked.gone = {"west"}
    combined = masked.combine(messages)
    assert (combined.messages, combined.senders) == ({}, ("north",))
    assert "did not protect its contribution again" in combined.refused["west"]


def test_one_that_is_lost_before_it_consents_costs_the_sum(masked):
    """The others have consented, and consent to no other sum of the round."""
    messages = masked.protect(EXCHANGE)
    masked.gone = {"west"}
    combined = masked.combine(messages)
    assert (combined.messages, len(masked.asked)) == ({}, 1)
    assert all("west was lost between protecting and releasing" in combined.refused[n] for n in NAMES)
