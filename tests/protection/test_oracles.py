"""One protection against another: what they must open alike, and how far from plaintext at most.

All that are registered are compared, in all their variants, so that a new one is without being named.
"""

import numpy as np
import pytest
from comparison import assert_close, built, on_grid, protections, usable, variants
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import LAYOUT, hold_to_bound, hospitals, run_round, vectors

from skinfl import plugins
from skinfl.protection import PROTECTIONS, build_protection
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.quantise import BITS

#: which no single choice says
COMBINED = [("smpc", {"parties": "hospitals"}), ("smpc", {"smpc_scheme": "shamir", "ring": 64})]


def exact(hospitals, **options):
    """Return all protections on the grid of 22 bits, or on another one, and combinations on it."""
    found = list(on_grid(hospitals, **options))
    assert {"smpc", "he"} <= {protection.name for protection in found}
    return found + [build_protection(name, **{**more, **options}) for name, more in COMBINED]


@pytest.mark.parametrize("choice", protections())
def test_every_variant_opens_the_plain_sum_but_for_its_bound(choice):
    hold_to_bound(built(choice), vectors(3))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", [{}, {"clip": 2.0}, {"error_feedback": True}])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_bfvs_bound_holds_in_each_of_its_ways(bits, options, rounding):
    protection = build_protection("he", he_scheme="bfv", bits=bits, rounding=rounding, **options)
    hold_to_bound(protection, vectors(4))


@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("precision", [12, 22])
def test_all_on_one_grid_open_the_same_sum(rounding, precision):
    values = vectors(5, scale=3.0)
    values["hospital-1"][0] = 1000.0  # clipped alike, too
    opened = [
        run_round(protection, values).opened
        for protection in exact(5, precision=precision, rounding=rounding)
    ]
    code = FixedPoint(precision, rounding=rounding)
    expected = sum(code.encode(np.clip(v.astype(np.float64), -64, 64)) for v in values.values())
    ordinary = np.delete(np.arange(LAYOUT.size), [157, 158])
    assert opened[0].total[ordinary].tolist() == code.decode(expected)[ordinary].tolist()
    for other in opened[1:]:
        assert other.total.tolist() == opened[0].total.tolist()
        assert other.senders == opened[0].senders


def test_defaults_open_the_same_sum():
    totals = [run_round(protection, vectors(5)).opened.total.tolist() for protection in on_grid(5)]
    assert len(totals) > 2 and all(total == totals[0] for total in totals)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.lists(st.floats(-64, 64, width=32), min_size=4, max_size=4), min_size=2, max_size=6))
def test_any_updates_open_alike_and_near_plaintext(rows):
    layout = Layout([Segment("a", 3), Segment("n", 1, "count")])
    values = dict(zip(hospitals(len(rows)), np.array(rows, np.float32)))
    for protection in usable():
        result = run_round(protection, values, layout=layout)
        assert_close(protection, result.opened.total, result.plain, list(values.values()))
    totals = [run_round(each, values, layout=layout).opened.total.tolist() for each in on_grid(len(rows))]
    assert all(total == totals[0] for total in totals)


@pytest.mark.parametrize("bits", BITS)
def test_quantised_encryption_stays_within_its_bound_of_plaintext(bits):
    protection = build_protection("he", he_scheme="bfv", bits=bits, clip=2.0)
    result = run_round(protection, vectors(5))
    step = 2.0 / (2 ** (bits - 1) - 1)
    assert protection.error_bound(5, 0.3) == 5 * step
    assert np.abs(result.opened.total - result.plain).max() < 5 * step


def test_the_randomness_of_shares_and_keys_does_not_show():
    for protection in exact(3):
        first, second = (run_round(protection, vectors(3)) for _ in range(2))
        assert first.opened.total.tolist() == second.opened.total.tolist()
        assert first.protected["hospital-1"].messages != second.protected["hospital-1"].messages


# the comparison itself

WRONG = """
import numpy as np

from skinfl.protection import PROTECTIONS
from skinfl.protection.plaintext import Plaintext
from skinfl.registry import Option

MUCH = Option("noise", str, "some", "how much noise there is", choices=("some", "none"))


class Noisy:
    def __init__(self, opener, size):
        self.place, self._opener, self._size = opener.place, opener, size

    def open(self, combined, exchange):
        opened = self._opener.open(combined, exchange)
        return opened._replace(total=opened.total + self._size)


@PROTECTIONS.register("noisy", "adds a hundred-thousandth and does not say so", options=[MUCH])
class WithNoise(Plaintext):
    name = "noisy"

    def __init__(self, *, noise="some"):
        self.size = 1e-5 if noise == "some" else 0.0

    def setup(self, hospitals):
        roles = super().setup(hospitals)
        return roles._replace(opener=Noisy(roles.opener, self.size))
"""


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """A user's own file with a protection that is wrong in one of its variants."""
    (tmp_path / "noisy.py").write_text(WRONG)
    monkeypatch.setattr(plugins, "_loaded", {})
    plugins.load(str(tmp_path / "noisy.py"))
    yield
    PROTECTIONS.unregister("noisy")


def test_a_new_protection_is_compared_without_being_named_and_a_wrong_one_found(noisy):
    found = {parameter.id: parameter.values[0] for parameter in protections()}
    assert found["noisy"] == ("noisy", {}) and found["noisy-none"] == ("noisy", {"noise": "none"})
    assert [p.values[0] for p in protections(all_variants=False)][-1] == ("noisy", {})
    hold_to_bound(built(found["noisy-none"]), vectors(3))
    with pytest.raises(AssertionError, match=r"noisy is off by 1(\.\d+)?e-05"):
        hold_to_bound(built(found["noisy"]), vectors(3))


def test_variants_show_every_choice_that_is_accepted():
    shown = [value for given in variants(PROTECTIONS["he"]) for value in given.values()]
    assert {"ckks-vector", "bfv", 8, 12, 2048, 4096, "truncate"} <= set(shown)
    assert 1024 not in shown  # too small for any sum
    assert {"he_scheme": "bfv", "bits": 8} in variants(PROTECTIONS["he"])
    assert {"smpc_scheme": "shamir"} in variants(PROTECTIONS["smpc"])
    assert variants(PROTECTIONS["plaintext"]) == [{}]
