"""One protection against another: what they must open alike, and how far from plaintext at most."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import LAYOUT, hospitals, run_round, vectors

from skinfl.protection import build_protection
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.layout import Layout, Segment

EXACT = [
    ("smpc", {}),
    ("smpc", {"ring": 64}),
    ("smpc", {"parties": "hospitals"}),
    ("smpc", {"smpc_scheme": "shamir", "ring": 64}),
    ("he", {}),
    ("he", {"he_scheme": "ckks-vector"}),
    ("he", {"degree": 4096}),
]


@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("precision", [12, 22])
def test_secret_sharing_and_encryption_open_the_same_sum(rounding, precision):
    values = vectors(5, scale=3.0)
    values["hospital-1"][0] = 1000.0  # clipped alike, too
    opened = [
        run_round(build_protection(name, precision=precision, rounding=rounding, **options), values).opened
        for name, options in EXACT
    ]
    code = FixedPoint(precision, rounding=rounding)
    expected = sum(code.encode(np.clip(v.astype(np.float64), -64, 64)) for v in values.values())
    ordinary = np.delete(np.arange(LAYOUT.size), [157, 158])
    assert opened[0].total[ordinary].tolist() == code.decode(expected)[ordinary].tolist()
    for other in opened[1:]:
        assert other.total.tolist() == opened[0].total.tolist()
        assert other.senders == opened[0].senders


def test_defaults_open_the_same_sum():
    totals = [run_round(build_protection(name), vectors(5)).opened.total.tolist() for name in ("smpc", "he")]
    assert totals[0] == totals[1]


@settings(deadline=None, max_examples=8)
@given(st.lists(st.lists(st.floats(-64, 64, width=32), min_size=4, max_size=4), min_size=2, max_size=6))
def test_any_updates_open_alike_and_near_plaintext(rows):
    layout = Layout([Segment("a", 3), Segment("n", 1, "count")])
    values = dict(zip(hospitals(len(rows)), np.array(rows, np.float32)))
    plain = run_round(build_protection("plaintext"), values, layout=layout).opened.total
    shared = run_round(build_protection("smpc"), values, layout=layout).opened.total
    encrypted = run_round(build_protection("he"), values, layout=layout).opened.total
    assert shared.tolist() == encrypted.tolist()
    assert np.abs(shared - plain).max() <= len(rows) * 2.0**-23


@pytest.mark.parametrize(("bits", "relative"), [(8, 1 / 127), (12, 1 / 2047), (16, 1 / 32767)])
def test_quantised_encryption_stays_within_its_bound_of_plaintext(bits, relative):
    result = run_round(build_protection("he", he_scheme="bfv", bits=bits, clip=2.0), vectors(5))
    assert np.abs(result.opened.total - result.plain).max() < 5 * 2.0 * relative


def test_the_randomness_of_shares_and_keys_does_not_show():
    for name, options in EXACT:
        protection = build_protection(name, **options)
        first, second = (run_round(protection, vectors(3)) for _ in range(2))
        assert first.opened.total.tolist() == second.opened.total.tolist()
        assert first.protected["hospital-1"].messages != second.protected["hospital-1"].messages
