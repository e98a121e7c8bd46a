import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinfl.errors import SettingsError
from skinfl.protection.fixedpoint import FixedPoint


def test_hand_worked_encoding():
    values = np.array([0.3, -0.3, 1.0, -2.25, 0.03125, 0.0])  # times 16: 4.8, -4.8, 16, -36, 0.5, 0
    assert FixedPoint(4).encode(values).tolist() == [4, -4, 16, -36, 0, 0]
    assert FixedPoint(4, rounding="nearest").encode(values).tolist() == [5, -5, 16, -36, 0, 0]


def test_hand_worked_decoding_truncates_where_python_floors():
    code = FixedPoint(16)
    integers = np.array([-32768, 32768, -65536, -65537, 1, 0])
    assert code.decode(integers).tolist() == [-0.5, 0.5, -1.0, -1.0 - 2**-16, 2**-16, 0.0]
    assert code.decode_sympc(integers).tolist() == code.decode(integers).tolist()
    assert -32768 // 65536 - 1 + 0.5 == -1.5  # what a floored quotient would have given for the first


def test_sympc_decimal_decoding_carries_its_float32_error():
    # -1 becomes -1 + 9999/10000 in float32, which is not the float32 nearest to -0.0001
    assert FixedPoint(4, base=10).decode_sympc(np.array([-1]))[0] == np.float32(-1) + np.float32(0.9999)


def test_work_and_out_take_the_result():
    values = np.array([0.26, -0.26], np.float32)
    out, work = np.zeros(2, np.int32), np.zeros(2, np.float32)
    assert FixedPoint(2).encode(values, out=out, work=work) is out
    assert out.tolist() == [1, -1]
    assert values.tolist() == [np.float32(0.26), np.float32(-0.26)]


def test_integers_encode_exactly():
    assert FixedPoint(16).encode(np.array([2, -7])).tolist() == [131072, -458752]


def test_unknown_rounding_is_refused():
    with pytest.raises(SettingsError, match="did you mean 'nearest'"):
        FixedPoint(16, rounding="neares")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=20),
    st.integers(0, 30),
    st.sampled_from(["truncate", "nearest"]),
)
def test_errors_stay_within_the_stated_bound(values, precision, rounding):
    values = np.array(values, np.float64)
    code = FixedPoint(precision, rounding=rounding)
    error = code.decode(code.encode(values)) - values
    step = 2.0**-precision
    assert np.all(np.abs(error) <= (step / 2 if rounding == "nearest" else step))
    if rounding == "truncate":
        assert np.all(np.abs(error) < step)
        assert np.all(error * np.sign(values) <= 0)  # towards zero


@pytest.fixture(scope="module")
def sympc(real_data):
    return json.loads((real_data / "sympc_vectors.json").read_text())


@pytest.mark.real
def test_encoder_agrees_with_every_sympc_vector(sympc):
    encoded = decoded = 0
    for case in sympc["encoder"]:
        code = FixedPoint(case["precision"], base=case["base"])
        assert code.scale == case["scale"]
        if "decode_ints" in case:
            integers = np.array(case["decode_ints"], np.int64)
        else:
            values = np.array(case["input_as_stored"], case["input_dtype"].replace("torch.", ""))
            integers = code.encode(values)
            assert integers.tolist() == case["encoded_int64"]
            encoded += len(integers)
        assert code.decode_sympc(integers).dtype == np.float32
        assert code.decode_sympc(integers).tolist() == case["decoded"]
        decoded += len(integers)
    assert encoded == 198 and decoded == 240


@pytest.mark.real
def test_shares_of_sympc_reconstruct_here(sympc):
    for case in sympc["shares"]:
        code = FixedPoint(case["precision"], base=case["base"])
        secret = np.atleast_1d(np.array(case["secret"]))
        if secret.dtype == np.float64:
            secret = secret.astype(np.float32)
        total = sum(np.ravel(np.array(share, np.int64)) for share in case["shares"])  # wraps
        assert total.tolist() == case["ring_sum_mod_2_64_signed"]
        assert code.encode(secret).tolist() == total.tolist()
        if "decoded" in case:
            assert code.decode_sympc(total).tolist() == case["decoded"]


@pytest.mark.real
def test_sums_of_sympc_shares_decode_here(sympc):
    for case in sympc["end_to_end"]:
        code = FixedPoint(16)
        total = sum(np.array(share, np.int64) for share in case["sum_shares"])
        assert total.tolist() == case["sum_ring"]
        assert sum(code.encode(np.array(c, np.float32)) for c in case["clients"]).tolist() == case["sum_ring"]
        assert code.decode_sympc(total).tolist() == case["sum_decoded"]
        assert code.decode(total).tolist() == case["sum_decoded"]
