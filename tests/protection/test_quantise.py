import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinfl.protection.authenticator import Authenticated, Authenticator
from skinfl.protection.base import Exchange
from skinfl.protection.encoder import BLOCK, Tally
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.quantise import HEADROOM, MINIMUM_CLIP, QuantisedEncoding, Quantiser, next_clips


def quantise(values, bits=8, clip=1.27, number=1, quantiser=None, **options):
    layout = Layout([Segment("w", len(values))])
    encoding = QuantisedEncoding(bits, clip)
    quantiser = quantiser or Quantiser(encoding, "h", salt=b"", **options)
    tally = Tally()
    proving = Authenticated(quantiser, Authenticator(b"secret"), "h")
    blocks = proving.blocks(np.asarray(values, np.float64), Exchange("r", number, layout), tally)
    integers = np.concatenate(list(blocks))
    decoded = encoding.decode(integers, layout, 1, "")
    assert decoded.clipped == pytest.approx(tally.share, abs=2.0**-27)
    return integers[: len(values)], decoded.vector, tally


def test_hand_worked():
    # 8 bits: 127 steps of 0.01 each way, shifted up by 127
    integers, back, tally = quantise([0.0, 0.01, -0.014, 1.27, 5.0, -1.27], rounding="nearest")
    assert integers.tolist() == [127, 128, 126, 254, 254, 0]
    assert back == pytest.approx([0, 0.01, -0.01, 1.27, 1.27, -1.27])
    assert (tally.clipped, tally.values) == (1, 6)


def test_stochastic_rounding_is_unbiased():
    _, back, _ = quantise(np.full(BLOCK, 0.003))  # 0.3 steps: three in ten go up
    steps = back / 0.01
    assert set(np.rint(steps).astype(int)) == {0, 1}
    assert abs(steps.mean() - 0.3) < 5 * np.sqrt(0.21 / BLOCK)


def test_zeros_and_grid_points_stay():
    integers, _, _ = quantise(np.zeros(1000))
    assert set(integers) == {127}
    encoding = QuantisedEncoding(16, 1.0)
    exact = np.arange(-32767, 32768, 997) / 32767
    _, back, _ = quantise(exact, bits=16, clip=1.0, rounding="nearest")
    assert back.tolist() == (np.arange(-32767, 32768, 997) * (1 / encoding.half)).tolist()


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([8, 12, 16]),
    st.floats(1e-5, 1e5),
    st.lists(st.floats(-1.2, 1.2), min_size=1, max_size=30),
    st.sampled_from(["stochastic", "nearest"]),
)
def test_integers_stay_in_range_and_errors_within_the_bound(bits, clip, parts, rounding):
    values = np.array(parts) * clip
    integers, back, _ = quantise(values, bits=bits, clip=clip, rounding=rounding)
    encoding = QuantisedEncoding(bits, clip)
    assert integers.min() >= 0 and integers.max() <= encoding.largest
    error = np.abs(back - np.clip(values, -clip, clip))
    assert np.all(error <= clip / encoding.half * (0.5 if rounding == "nearest" else 1) * (1 + 1e-9))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_extremes_never_round_out_of_range(bits):
    for clip in (1.0, 0.1, 1 / 3, 7e-5):
        integers, _, _ = quantise([clip, -clip] * 5000, bits=bits, clip=clip)
        assert set(integers) == {0, QuantisedEncoding(bits, clip).largest}


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_single_precision_extremes_stay_in_range_too(bits):
    """float32(0.1) is above 0.1: it must be clipped, not rounded to a word too large for its lane."""
    layout, encoding = Layout([Segment("w", 20_000)]), QuantisedEncoding(bits, None)
    for clip in (0.1, 0.7, 1 / 3):
        quantiser = Quantiser(encoding, "h", salt=b"")
        quantiser.set_ranges(np.array([clip]))
        values = np.full(20_000, np.float32(clip))
        values[::2] *= -1
        tally = Tally()
        integers = np.concatenate(list(quantiser.blocks(values, Exchange("r", 1, layout), tally)))[:20_000]
        assert integers.min() >= 0 and integers.max() <= encoding.largest


def test_next_ranges_are_twice_the_mean_peak():
    clips = next_clips(np.array([3.0, 0.0, 1e9]), 2)
    assert clips[0] == HEADROOM * 1.5
    assert clips[1] == MINIMUM_CLIP
    assert clips[2] == 2.0**22
    assert np.all(np.mod(next_clips(np.array([0.1, 1 / 3]), 3), 2.0**-27) == 0)


def test_error_feedback_loses_nothing_in_the_long_run():
    """After T rounds of the same update, the sum of what was sent is off by one step, not T."""
    values = np.array([0.003, -0.0047, 0.0149, 1.2])
    encoding = QuantisedEncoding(8, 1.27)
    for feedback, off in ((True, 0.0101), (False, 0.09)):
        quantiser = Quantiser(encoding, "h", salt=b"", rounding="nearest", error_feedback=feedback)
        total = sum(quantise(values, number=t, quantiser=quantiser)[1] for t in range(20))
        error = np.abs(total - 20 * values).max()
        assert (error <= off) if feedback else (error >= 0.05)


def test_error_feedback_carries_what_was_clipped():
    quantiser = Quantiser(QuantisedEncoding(8, 1.27), "h", salt=b"", rounding="nearest", error_feedback=True)
    first = quantise([2.0], quantiser=quantiser)[1]
    second = quantise([0.0], number=2, quantiser=quantiser)[1]
    assert first == pytest.approx([1.27]) and second == pytest.approx([0.73])


def test_a_state_of_another_model_is_not_added():
    quantiser = Quantiser(QuantisedEncoding(8, 1.27), "h", salt=b"", rounding="nearest", error_feedback=True)
    quantiser.load_state({"residual": np.ones(7, np.float32)})
    assert quantise([0.5], quantiser=quantiser)[1] == pytest.approx([0.5])


def test_digest_of_ranges_needs_the_hospitals_secret():
    layout = Layout([Segment("w", 3)])
    marks = []
    for salt, clip in ((b"a", 1.0), (b"b", 1.0), (b"a", 2.0), (b"a", 1.0)):
        quantiser = Quantiser(QuantisedEncoding(8, None), "h", salt=salt)
        assert quantiser.agreement(layout) == ""
        quantiser.set_ranges(np.array([clip]))
        marks.append(quantiser.agreement(layout))
    assert marks[0] == marks[3] and len(set(marks)) == 3
