"""Small promises of the protections: names, ranges and sums that must not pass in silence."""

from __future__ import annotations

import numpy as np
import pytest
from attacks import may_be_refused, must_not_end, refused, succeeded_if
from protection_helpers import LAYOUT, hospitals, run_round, vectors

from skinfl.errors import UnprovedSum
from skinfl.protection import build_protection
from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout

EXCHANGE = Exchange("run", 1, LAYOUT)
NAMES = hospitals(3)


def expected(values):
    return np.sum([v.astype(np.float64) for v in values.values()], axis=0)


# Layouts: two different ones have different digests, whatever their layers are called.

SAME_TEXT = {
    "one layer or two": ([("a\t1\tvalue\nb", 2)], [("a", 1), ("b", 2)]),
    "a value or a count": ([("a\t1\tcount\nb", 2)], [("a", 1, "count"), ("b", 2)]),
    "where one name ends": ([("a\t1\tvalue\nb", 1), ("c", 2)], [("a", 1), ("b\t1\tvalue\nc", 2)]),
}


@pytest.mark.parametrize("pair", SAME_TEXT.values(), ids=list(SAME_TEXT))
def test_layouts_of_other_segments_have_other_digests(pair):
    with may_be_refused():
        one, other = map(Layout, pair)
        assert one != other
        succeeded_if(one.digest == other.digest, "messages of one layout pass as those of the other")


# Ranges: what the coordinator passes on as agreed is checked before anything is quantised with it.


@pytest.fixture
def quantising():
    """A hospital's side under BFV after a first round, and the ranges it was told to use."""
    pytest.importorskip("tenseal")
    protection = build_protection("he", he_scheme="bfv")
    roles = protection.setup(NAMES)
    ranges = run_round(protection, vectors(3), roles=roles).opened.ranges
    assert ranges is not None
    side = roles.hospitals[NAMES[0]]
    side.set_ranges(ranges)
    assert side.protect(vectors(3)[NAMES[0]], EXCHANGE._replace(round=2)).messages
    return side, ranges


BAD_RANGES = [
    pytest.param(1e-300, id="tiny"),
    pytest.param(0.0, id="zero"),
    pytest.param(-1.0, id="negative"),
    pytest.param(np.nan, id="no number"),
    pytest.param(np.inf, id="infinite"),
    pytest.param(1e300, id="huge"),
]


@pytest.mark.parametrize("value", BAD_RANGES)
@pytest.mark.parametrize("segments", [slice(None), slice(1)], ids=["all", "one"])
def test_impossible_ranges_are_refused(quantising, value, segments):
    side, ranges = quantising
    told = ranges.copy()
    told[segments] = value
    with may_be_refused(), np.errstate(all="ignore"):
        side.set_ranges(told)
        sent = side.protect(vectors(3)[NAMES[0]], EXCHANGE._replace(round=3)).messages
        succeeded_if(bool(sent), f"an update quantised with the range {value}")


# Sums: what is opened is the sum, or is refused.


def test_a_plaintext_sum_that_overflows():
    values = {name: np.full(LAYOUT.size, 1e308) for name in NAMES[:2]}
    with may_be_refused(), np.errstate(over="ignore"):
        total = run_round(build_protection("plaintext"), values).opened.total
        succeeded_if(not np.isfinite(total).all(), f"a sum of {total.max()}")


def round_with(scheme, spoil, **options):
    """Run a round in which ``spoil`` (roles, messages by hospital and party) changes what parties get."""
    values = vectors(3)
    roles = build_protection("smpc", smpc_scheme=scheme, parties="hospitals", **options).setup(NAMES)
    messages = {name: roles.hospitals[name].protect(v, EXCHANGE).messages for name, v in values.items()}
    spoil(roles, messages, values)
    for party, side in roles.aggregators.items():
        for name in NAMES:
            side.receive(messages[name][party], EXCHANGE)
    return roles, values


def opened(roles, parties):
    """Open as the coordinator does, and have a hospital that took no part in it verify."""
    combined = {party: roles.aggregators[party].combine(NAMES, EXCHANGE) for party in parties}
    found = roles.opener.open(combined, EXCHANGE)
    return roles.hospitals[NAMES[2]].verify(found.words, found.senders, EXCHANGE).total


def nothing(roles, messages, values):
    pass


def second_sharing(roles, messages, values):
    """The relay keeps a first sharing, has the hospital share its vector again, and mixes the two."""
    again = roles.hospitals[NAMES[0]].protect(values[NAMES[0]], EXCHANGE).messages
    messages[NAMES[0]][NAMES[1]] = again[NAMES[1]]


@pytest.mark.parametrize("scheme", ["additive", "shamir"])
def test_sums_of_honest_parties(scheme):
    """What the tests below presuppose."""
    roles, values = round_with(scheme, nothing)
    found = opened(roles, NAMES if scheme == "additive" else NAMES[:2])
    np.testing.assert_allclose(found, expected(values), atol=1e-5)


@pytest.mark.parametrize("scheme", ["additive", "shamir"])
def test_shares_of_two_sharings_mixed(scheme):
    roles, _ = round_with(scheme, second_sharing)
    with refused(f"{UnprovedSum.MARK}|no 3 updates within their clip range"):
        opened(roles, NAMES if scheme == "additive" else NAMES[:2])


@pytest.mark.parametrize("scheme", ["additive", "shamir"])
def test_a_party_that_alters_its_sum(scheme):
    roles, _ = round_with(scheme, nothing)
    kept = roles.aggregators[NAMES[0]]._kept
    assert set(kept) == set(NAMES)
    kept[NAMES[1]] = bytes(32) if isinstance(kept[NAMES[1]], bytes) else np.zeros_like(kept[NAMES[1]])
    with refused(f"{UnprovedSum.MARK}|no 3 updates within their clip range"):
        opened(roles, NAMES if scheme == "additive" else NAMES[:2])


def test_a_party_that_shifts_its_sum_a_little():
    """Within any range that could be checked: only the proof finds it."""
    roles, _ = round_with("additive", nothing)
    party = roles.aggregators[NAMES[0]]
    (name,) = [name for name, content in party._kept.items() if isinstance(content, np.ndarray)]
    party._kept[name] = party._kept[name] + np.eye(1, len(party._kept[name]), dtype=np.uint32)[0]
    with refused(UnprovedSum.MARK):
        opened(roles, NAMES)


def test_must_not_end_is_for_errors_of_the_package_only():
    """The tests' own mistakes are not taken for attacks."""
    with pytest.raises(KeyError), must_not_end("this"):
        {}["a mistake of the test"]
