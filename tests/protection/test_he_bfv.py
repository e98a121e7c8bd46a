import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import LAYOUT, combine, hospitals, run_round, vectors

from skinfl.errors import MessageError, ProtectionError, SettingsError
from skinfl.protection import build_protection
from skinfl.protection.base import Exchange
from skinfl.protection.he import bfv, seal
from skinfl.protection.he.standard import check_security
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.quantise import QuantisedEncoding

VALUES = np.delete(np.arange(LAYOUT.size), [157, 158])


@pytest.mark.parametrize("hospitals", [2, 3, 5, 10, 30, 100, 1000])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_parameters_are_secure_and_cannot_overflow(hospitals, bits):
    largest = QuantisedEncoding(bits, None).largest
    found = bfv.choose_parameters(hospitals=hospitals, largest=largest, degree=None)
    check_security(found.degree, found.prime_bits)
    assert found.radix > hospitals * largest
    assert found.radix**found.lanes <= found.plain_modulus < 2**60
    moduli = seal.primes(found.degree, found.prime_bits)
    q = math.prod(moduli[:-1] if len(moduli) > 1 else moduli)
    assert 2 * found.plain_modulus * hospitals * 22 < q  # the error of the sum is below q / (2 t)
    assert found.plain_modulus not in moduli


def test_lanes_by_hand():
    packing = bfv.BfvPacking(
        bfv.choose_parameters(hospitals=2, largest=9, degree=2048), QuantisedEncoding(8, 1.0)
    )
    lanes, radix, n = packing.parameters.lanes, packing.parameters.radix, packing.parameters.degree
    assert (radix, n, lanes) == (19, 2048, lanes) and lanes > 2
    integers = np.zeros(n * 2 + 1, np.int64)
    integers[[0, n, 2 * n]] = 3, 5, 7
    plaintext = seal.sealapi.Plaintext()
    packing.encode(integers, plaintext)
    assert packing._encoder.decode_uint64(plaintext)[:2] == [3 + 5 * 19 + 7 * 361, 0]
    assert packing.decode(plaintext, len(integers)).tolist() == integers.tolist()


@settings(deadline=None, max_examples=12)
@given(st.integers(2, 12), st.sampled_from([8, 12, 16]), st.integers(0, 2**32 - 1))
def test_sums_of_lanes_are_exact(hospitals, bits, seed):
    largest = QuantisedEncoding(bits, None).largest
    packing = bfv.BfvPacking(
        bfv.choose_parameters(hospitals=hospitals, largest=largest, degree=None), QuantisedEncoding(bits, 1.0)
    )
    rng = np.random.default_rng(seed)
    integers = rng.integers(0, largest + 1, size=(hospitals, 3 * packing.parameters.degree // 2))
    integers[:, 0] = largest  # the worst case
    generator = seal.sealapi.KeyGenerator(packing.context)
    encryptor = seal.sealapi.Encryptor(packing.context, generator.secret_key())
    evaluator, plaintext, total = seal.sealapi.Evaluator(packing.context), seal.sealapi.Plaintext(), None
    for row in integers:
        packing.encode(row, plaintext)
        ciphertext = seal.load(
            seal.sealapi.Ciphertext(), packing.context, seal.dump(encryptor.encrypt_symmetric(plaintext))
        )
        if total is None:
            total = ciphertext
        else:
            evaluator.add_inplace(total, ciphertext)
    seal.sealapi.Decryptor(packing.context, generator.secret_key()).decrypt(total, plaintext)
    assert packing.decode(plaintext, integers.shape[1]).tolist() == integers.sum(axis=0).tolist()


def test_nothing_that_fits_is_an_error():
    with pytest.raises(ProtectionError, match=r"no secure BFV parameters.*at degree 1024"):
        build_protection("he", he_scheme="bfv", degree=1024).setup(hospitals(5))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_fixed_range_gives_the_quantised_sum_exactly(bits):
    values = vectors(5)
    protection = build_protection("he", he_scheme="bfv", bits=bits, clip=0.5, rounding="nearest")
    result = run_round(protection, values)
    half = 2 ** (bits - 1) - 1
    whole = [np.rint(np.clip(v.astype(np.float64), -0.5, 0.5) * (half / 0.5)) for v in values.values()]
    assert result.opened.total[VALUES].tolist() == (np.sum(whole, axis=0) * (0.5 / half))[VALUES].tolist()
    assert result.opened.ranges is None
    assert result.protected["hospital-1"].clipped > 0.05
    assert np.abs(result.opened.total - result.plain)[157:159].max() <= 5 * 2.0**-28  # counts keep precision


def test_a_hundred_hospitals_add_exactly():
    step = 1 / 32767
    values = {n: np.clip(np.rint(v / step), -32767, 32767) * step for n, v in vectors(100).items()}
    result = run_round(build_protection("he", he_scheme="bfv", clip=1.0, rounding="nearest"), values)
    assert (
        np.rint(result.opened.total[VALUES] / step).tolist() == np.rint(result.plain[VALUES] / step).tolist()
    )
    assert np.abs(result.opened.total - result.plain).max() < 1e-6


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_ranges_are_agreed_from_the_first_rounds_sum(bits):
    protection = build_protection("he", he_scheme="bfv", bits=bits)
    roles = protection.setup(hospitals(4))
    values = vectors(4)
    first = run_round(protection, values, roles=roles)
    assert np.abs(first.opened.total - first.plain).max() <= 4 * 2.0**-17  # wide: nothing agreed yet
    peaks = [
        [np.abs(v[s]).max() for v in values.values()]
        for s in (slice(0, 150), slice(150, 157), slice(159, 200))
    ]
    assert first.opened.ranges == pytest.approx(2 * np.mean(peaks, axis=1), abs=1e-7)
    for side in roles.hospitals.values():
        side.set_ranges(first.opened.ranges)
    second = run_round(protection, values, roles=roles, number=2)
    step = first.opened.ranges / (2 ** (bits - 1) - 1)
    error = np.abs(second.opened.total - second.plain)
    for where, s in zip((slice(0, 150), slice(150, 157), slice(159, 200)), step):
        assert 0 < error[where].max() < 4 * s
    assert second.opened.ranges.tolist() == first.opened.ranges.tolist()  # same updates, same ranges
    assert len(second.protected["hospital-1"].messages["aggregator"]) < 1.01 * len(
        first.protected["hospital-1"].messages["aggregator"]
    )


def test_a_hospital_that_missed_the_agreement_is_refused_by_name():
    protection = build_protection("he", he_scheme="bfv")
    roles = protection.setup(hospitals(3))
    agreed = run_round(protection, vectors(3), roles=roles).opened.ranges
    for name in ("hospital-1", "hospital-2"):
        roles.hospitals[name].set_ranges(agreed)
    exchange = Exchange("run", 2, LAYOUT)
    aggregator = roles.aggregators["aggregator"]
    for name in hospitals(3):
        message = roles.hospitals[name].protect(vectors(3)[name], exchange).messages["aggregator"]
        if name == "hospital-3":
            with pytest.raises(MessageError, match="'hospital-3' refused: it rests on another task"):
                aggregator.receive(message, exchange)
        else:
            aggregator.receive(message, exchange)
    again = exchange._replace(attempt=1, cohort=("hospital-1", "hospital-2"))  # the others go on
    protected = {name: roles.hospitals[name].protect(vectors(3)[name], again) for name in again.cohort}
    for each in protected.values():
        aggregator.receive(each.messages["aggregator"], again)
    assert roles.opener.open(combine(roles, protected, again.cohort, again), again).senders == again.cohort


def test_sums_over_differing_ranges_are_never_opened():
    """Even if the aggregator failed to notice, the ranges inside the sum give it away."""
    encoding = QuantisedEncoding(8, None)
    layout = Layout([Segment("a", 1)])
    one, two = (encoding.counts.encode(np.array([1.0, clip])) for clip in (0.5, 0.5 + 2.0**-27))
    total = np.concatenate([[254], one + two, np.zeros(encoding.trailer.width, np.int64)])
    with pytest.raises(ProtectionError, match="different clip ranges"):
        encoding.decode(total, layout, 2, "digest")


def test_very_large_ranges_are_agreed_exactly():
    protection = build_protection("he", he_scheme="bfv", bits=8)
    roles = protection.setup(hospitals(60))
    layout = Layout([Segment("a", 2), Segment("n", 1, "count")])
    values = dict.fromkeys(hospitals(60), np.array([3e6, -2.5e6, 1.0]))
    for side in roles.hospitals.values():
        side.set_ranges(np.array([3.9e6 + 2.0**-27]))
    result = run_round(protection, values, layout=layout, roles=roles)
    assert np.abs(result.opened.total - result.plain).max() < 60 * 3.9e6 / 127
    assert result.opened.ranges.tolist() == [2.0**22]


def test_uploads_are_lighter_than_float32():
    layout = Layout([Segment("w", 300_000), Segment("n", 1, "count")])
    for bits, most in ((16, 4.0), (12, 2.7), (8, 1.9)):
        protection = build_protection("he", he_scheme="bfv", bits=bits)
        roles = protection.setup(hospitals(5))
        side = roles.hospitals["hospital-1"]
        side.set_ranges(np.array([1.0]))
        sent = side.protect(np.zeros(layout.size, np.float32), Exchange("r", 1, layout))
        assert len(sent.messages["aggregator"]) / layout.size < most


def test_state_survives_a_restart():
    protection = build_protection("he", he_scheme="bfv", bits=8, rounding_seed=3, error_feedback=True)
    values = vectors(3)

    def two_more(roles):
        return [run_round(protection, values, roles=roles, number=n).opened.total.tolist() for n in (2, 3)]

    roles = protection.setup(hospitals(3))
    agreed = run_round(protection, values, roles=roles).opened.ranges
    for side in roles.hospitals.values():
        side.set_ranges(agreed)
    states = {name: {k: a.copy() for k, a in s.state().items()} for name, s in roles.hospitals.items()}
    assert set(states["hospital-1"]) == {"ranges", "residual"}
    expected = two_more(roles)

    restarted = protection.setup(hospitals(3))
    for name, side in restarted.hospitals.items():
        side.load_state(states[name])
    assert two_more(restarted) == expected


def test_rounding_differs_between_runs_unless_a_seed_asks_otherwise():
    def total(**options):
        protection = build_protection("he", he_scheme="bfv", bits=8, clip=1.0, **options)
        return run_round(protection, vectors(2)).opened.total.tolist()

    assert total() != total()
    assert total(rounding_seed=5) == total(rounding_seed=5) != total(rounding_seed=6)
    assert total(rounding="nearest") == total(rounding="nearest")


def test_fixed_ranges_ignore_agreements_and_keep_no_state():
    side = build_protection("he", he_scheme="bfv", clip=1.0).setup(hospitals(2)).hospitals["hospital-1"]
    side.set_ranges(np.array([1.0, 2.0, 3.0]))
    assert side.state() == {}


def test_a_layout_of_counts_alone():
    layout = Layout([Segment("pixels", 7, "count"), Segment("classes", 7, "count")])
    for options in ({}, {"he_scheme": "bfv"}, {"he_scheme": "bfv", "bits": 8, "clip": 1.0}):
        result = run_round(build_protection("he", **options), vectors(3, layout), layout=layout)
        assert np.abs(result.opened.total - result.plain).max() <= 3 * 2.0**-28
        assert result.opened.ranges is None


def test_precision_is_a_matter_of_ckks():
    assert build_protection("he").precision_for(5) == 22
    assert build_protection("he").precision_for(100) == 20
    with pytest.raises(SettingsError, match="no precision"):
        build_protection("he", he_scheme="bfv").precision_for(5)
