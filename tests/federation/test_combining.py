"""Adding at parties whose hospitals' masks must cancel: the whole cohort, or nothing."""

import numpy as np
import pytest

from skinfl.errors import ProtectionError
from skinfl.federation.transport import combine_at_parties
from skinfl.protection import build_protection
from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout, Segment

NAMES = ("north", "south", "west")
LAYOUT = Layout([Segment("w", 4), Segment("n", 1, "count")])
EXCHANGE = Exchange("run", 1, LAYOUT, cohort=NAMES)


def protected(roles, exchange):
    made = {name: roles.hospitals[name].protect(np.ones(5), exchange) for name in exchange.cohort}
    return {n: m.messages for n, m in made.items()}, {n: m.release for n, m in made.items()}


def test_a_cohort_is_added_with_its_releases():
    roles = build_protection("he").setup(NAMES)
    messages, releases = protected(roles, EXCHANGE)
    combined = combine_at_parties(roles.aggregators, messages, EXCHANGE, 2, releases)
    assert (combined.senders, combined.refused) == (NAMES, {})
    assert roles.opener.open(combined.messages, EXCHANGE).total.tolist() == [3.0] * 5


@pytest.mark.parametrize("message", [b"rubbish", None], ids=["refused", "missing"])
def test_fewer_than_the_cohort_are_left_uncombined_and_add_up_in_the_next_attempt(message):
    roles = build_protection("he").setup(NAMES)
    messages, _ = protected(roles, EXCHANGE)
    if message is None:
        del messages["south"]
    else:
        messages["south"] = {"aggregator": message}
    combined = combine_at_parties(roles.aggregators, messages, EXCHANGE, 2)
    assert (combined.messages, combined.senders) == ({}, ("north", "west"))
    assert set(combined.refused) == ({"south"} if message else set())

    again = EXCHANGE._replace(cohort=combined.senders, attempt=1)
    messages, releases = protected(roles, again)
    combined = combine_at_parties(roles.aggregators, messages, again, 2, releases)
    opened = roles.opener.open(combined.messages, again)
    assert (opened.senders, opened.total.tolist()) == (("north", "west"), [2.0] * 5)


def test_without_releases_nothing_is_added():
    roles = build_protection("he").setup(NAMES)
    messages, _ = protected(roles, EXCHANGE)
    with pytest.raises(ProtectionError, match="north has not released its mask"):
        combine_at_parties(roles.aggregators, messages, EXCHANGE, 2)


def test_shares_add_up_whoever_is_left():
    roles = build_protection("smpc").setup(NAMES)
    messages, _ = protected(roles, EXCHANGE)
    del messages["south"]
    combined = combine_at_parties(roles.aggregators, messages, EXCHANGE, 2)
    assert combined.senders == ("north", "west") and combined.messages
