import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import LAYOUT

from skinfl.errors import ProtectionError
from skinfl.protection.authenticator import Authenticated, Authenticator
from skinfl.protection.base import Exchange
from skinfl.protection.digits import CountDigits, Digits
from skinfl.protection.encoder import (
    BLOCK,
    FixedPointEncoder,
    Tally,
    check_vector,
    fit_precision,
    rechunk,
    separate_counts,
)
from skinfl.protection.layout import Layout, Segment


def integers_of(encoder, vector, layout):
    tally = Tally()
    proving = Authenticated(encoder, Authenticator(b"secret"), "hospital")
    blocks = [block.copy() for block in proving.blocks(vector, Exchange("run", 1, layout), tally)]
    assert all(block.dtype == encoder.dtype and len(block) <= BLOCK for block in blocks)
    assert sum(map(len, blocks)) == encoder.size(layout)
    return np.concatenate(blocks).astype(np.int64), tally


def test_hand_worked_digits():
    digits = Digits(10, 499)  # shifted to 0..998: three decimal digits
    assert digits.count == 3
    assert digits.encode(np.array([0, -499, 499])).tolist() == [9, 9, 4, 0, 0, 0, 8, 9, 9]
    assert digits.decode(np.array([17, 18, 8]), 2).tolist() == [0 + 0 - 998 + 17 + 180 + 800]


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 2**40),
    st.lists(st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3), min_size=1, max_size=9),
)
def test_digits_add_without_carrying(base, numbers):
    digits = Digits(base, 2**40)
    summed = sum(digits.encode(np.array(n)) for n in numbers)
    assert summed.max() <= (base - 1) * len(numbers)
    assert digits.decode(summed, len(numbers)).tolist() == np.sum(numbers, axis=0).tolist()


@pytest.mark.parametrize("base", [2, 255, 65535, 2**28, 2**60])
def test_counts_are_exact_at_any_width(base):
    counts = np.array([0.0, 1.0, 0.35, 10015.0, -3.5, 2.0**22])
    codec = CountDigits(base)
    total = codec.decode(codec.encode(counts) + codec.encode(counts / 2), 2)
    assert np.abs(total - 1.5 * counts).max() <= 2.0**-27


@pytest.mark.parametrize("bad", [2.0**22 + 1, np.nan, np.inf])
def test_a_count_is_refused_rather_than_clipped(bad):
    with pytest.raises(ProtectionError, match="count"):
        CountDigits(255).encode(np.array([1.0, bad]))


def test_no_room_for_a_digit_is_refused():
    with pytest.raises(ProtectionError, match="wider ring"):
        Digits(1, 5)


def test_split_merges_neighbouring_segments():
    parts = separate_counts(LAYOUT)
    assert parts.runs == (slice(0, 157), slice(159, 200))
    assert parts.counts.tolist() == [157, 158]


def test_integers_lie_in_order_with_counts_last():
    layout = Layout([Segment("n", 1, "count"), Segment("a", 2), Segment("b", 1)])
    encoder = FixedPointEncoder(hospitals=2, capacity=2**62, clip=8, precision=4, rounding="truncate")
    integers, _ = integers_of(encoder, np.array([3.0, 0.3, -0.3, 2.0]), layout)
    assert integers[:3].tolist() == [4, -4, 32]
    assert len(integers) == encoder.size(layout) == 4 + encoder.trailer.width
    assert encoder.decode(integers, layout, 1).vector.tolist() == [3.0, 0.25, -0.25, 2.0]


def test_float32_and_float64_vectors_give_the_same_integers():
    encoder = FixedPointEncoder(hospitals=5, capacity=2**31 - 1, clip=64, precision=22, rounding="nearest")
    vector = np.random.default_rng(3).normal(0, 30, LAYOUT.size).astype(np.float32)
    encoder.dtype = np.dtype(np.int32)
    narrow, tally = integers_of(encoder, vector, LAYOUT)
    encoder.dtype = np.dtype(np.int64)
    wide, _ = integers_of(encoder, vector.astype(np.float64), LAYOUT)
    values = encoder.size(LAYOUT) - encoder.trailer.width
    assert narrow[:values].tolist() == wide[:values].tolist()
    assert tally.clipped == np.count_nonzero(np.abs(np.delete(vector, [157, 158])) > 64) > 0
    assert tally.share == tally.clipped / 198


def test_clipping_is_counted_and_bounded():
    layout = Layout([Segment("a", 4)])
    encoder = FixedPointEncoder(hospitals=2, capacity=2**31 - 1, clip=1, precision=4, rounding="nearest")
    integers, tally = integers_of(encoder, np.array([0.5, -3.0, 1.0, 7.0]), layout)
    assert integers[:4].tolist() == [8, -16, 16, 16]
    assert (tally.clipped, tally.share) == (2, 0.5)
    assert encoder.decode(integers, layout, 1).clipped == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(bad, dtype):
    vector = np.zeros(LAYOUT.size, dtype)
    vector[11] = bad
    encoder = FixedPointEncoder(hospitals=2, capacity=2**31 - 1, clip=1, precision=4, rounding="nearest")
    with pytest.raises(ProtectionError, match="not finite"):
        integers_of(encoder, vector, LAYOUT)


def test_wrong_shapes_are_refused_and_integers_taken():
    with pytest.raises(ProtectionError, match=r"\(3,\) does not fit the layout's 200"):
        check_vector(np.zeros(3), LAYOUT)
    assert check_vector(np.zeros(200, int), LAYOUT).dtype == np.float64


def test_many_counts_come_in_blocks():
    layout = Layout([Segment("n", BLOCK + 5, "count")])
    encoder = FixedPointEncoder(hospitals=2, capacity=2**31 - 1, clip=1, precision=4, rounding="nearest")
    integers, _ = integers_of(encoder, np.ones(layout.size), layout)
    assert np.allclose(encoder.decode(integers, layout, 1).vector, 1)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 2000), st.floats(0.01, 1000), st.integers(20, 62))
def test_derived_precision_never_overflows_and_is_the_largest(hospitals, clip, bits):
    capacity = 2**bits - 1
    try:
        precision = fit_precision(None, hospitals=hospitals, clip=clip, capacity=capacity, scheme="it")
    except ProtectionError as error:
        assert "lower the clip" in str(error)
        return
    assert hospitals * np.ceil(clip * 2.0**precision) <= capacity
    assert precision == 22 or hospitals * np.ceil(clip * 2.0 ** (precision + 1)) > capacity
    assert fit_precision(precision, hospitals=hospitals, clip=clip, capacity=capacity, scheme="") == precision


def test_a_precision_that_could_overflow_is_refused_with_what_is_safe():
    # 5 * 64 * 2^23 is more than 2^31 - 1, 5 * 64 * 2^22 is not
    assert fit_precision(22, hospitals=5, clip=64, capacity=2**31 - 1, scheme="the ring") == 22
    with pytest.raises(ProtectionError, match=r"precision 23 could overflow the ring.*at most 22 is safe"):
        fit_precision(23, hospitals=5, clip=64, capacity=2**31 - 1, scheme="the ring")


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.data())
def test_rechunk_keeps_every_integer(sizes, data):
    total = sum(sizes)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=5)))
    blocks = np.split(np.arange(total), cuts)
    chunks = list(rechunk(blocks, sizes))
    assert [len(c) for c in chunks] == sizes
    assert np.concatenate(chunks).tolist() == list(range(total))


def test_rechunk_refuses_left_over_integers():
    with pytest.raises(ValueError, match="more integers"):
        list(rechunk([np.arange(3), np.arange(2)], [3]))


@pytest.mark.parametrize(
    ("capacity", "rounding", "dtype", "digest"),
    [
        (2**31 - 1, "nearest", np.int32, "31581e9594fb8a61"),
        (2**31 - 1, "nearest", np.int64, "31581e9594fb8a61"),
        (2**63 - 1, "truncate", np.int64, "567a692eb6e7f047"),
        (2**40, "nearest", np.int64, "2bd564f8affc20bc"),
    ],
)
def test_the_bits_that_are_shared_and_encrypted_do_not_change(capacity, rounding, dtype, digest):
    """The digests are those of the separate encoders that secret sharing and CKKS once had."""
    layout = Layout([Segment("a", 70_000), Segment("n", 2, "count"), Segment("b", 50)])
    encoder = FixedPointEncoder(
        hospitals=5, capacity=capacity, clip=2.0, precision=22, rounding=rounding, dtype=np.dtype(dtype)
    )
    vector = (np.arange(layout.size) % 1013 / 211 - 2.4).astype(np.float32)
    integers, tally = integers_of(encoder, vector, layout)
    values = integers[: len(integers) - encoder.trailer.width]
    assert hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()[:16] == digest
    assert tally.clipped == 11746
