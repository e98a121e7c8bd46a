"""The server's state: declared once, checked wherever it comes from, sent and kept as declared."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skinfl.assembly import assemble, load_federated_data
from skinfl.data.normalisation import Normalisation
from skinfl.errors import CheckpointError, MessageError, SettingsError
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.common import CommonState, Prepared
from skinfl.federation.local import LocalResult
from skinfl.federation.messages import Told, decode_common, decode_told, encode_common, encode_told
from skinfl.federation.rounds import RunState
from skinfl.federation.state import AUXILIARY, PARAMETERS, STATISTICS, ServerState, StateArray
from skinfl.federation.strategies import STRATEGIES, FedAvg, build_strategy
from skinfl.federation.update import StateLayout
from skinfl.settings import Settings

#: three parameters (a scale and a shift of BatchNorm among them), a running mean and a running variance
LAYOUT = StateLayout(nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)))
MODEL = np.array([1.0, 2.0, 3.0, 4.0, 0.5], np.float32)
DECLARED = (
    StateArray("statistics", 1, STATISTICS),
    StateArray("parameters", 2, PARAMETERS),
    StateArray("kept", 3, AUXILIARY),
    StateArray("control", 2, AUXILIARY),
)


def state():
    return ServerState(
        DECLARED,
        {"statistics": [7.0], "parameters": [1.0, 2.0], "kept": np.arange(3), "control": [0.5, -0.5]},
    )


def built(name, **settings):
    return build_strategy(name, Settings(strategy=name, **settings).asdict(), unit=64)


def test_the_model_is_parameters_then_statistics_as_float32():
    assert state().model.tolist() == [1.0, 2.0, 7.0]
    assert all(array.dtype == np.float32 for array in (state().model, *state().values()))


def test_a_state_cannot_be_changed_in_place():
    server = state()
    with pytest.raises(AttributeError, match="immutable"):
        server.control = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        server["control"][0] = 1.0
    server.model[0] = 9.0
    assert server == state()


def test_a_state_does_not_follow_the_arrays_it_was_made_of():
    own = np.zeros(2, np.float32)
    server = state().replace(control=own)
    own += 1.0
    assert server["control"].tolist() == [0.0, 0.0]
    assert state()["control"].tolist() == [0.5, -0.5]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_state_can_be_copied_and_handed_to_another_process(copied):
    assert copied(state()) == state()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"m": np.zeros(2)}, "not those of this strategy, which has statistics .1 values., parameters"),
        ({"control": np.zeros(3)}, r"control has shape \(3,\), \(2,\) expected"),
        ({"control": np.zeros((2, 1))}, "control has shape"),
    ],
)
def test_what_was_not_declared_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        state().replace(**changes)


def test_a_missing_array_a_repeated_name_and_an_unknown_role_are_refused():
    with pytest.raises(ValueError, match="not those"):
        ServerState(DECLARED, {"parameters": np.zeros(2)})
    for bad in ((DECLARED[0], DECLARED[0]), (StateArray("a", 1, "weights"),)):
        with pytest.raises(ValueError, match="distinct names and a role"):
            ServerState(bad, {d.name: np.zeros(1) for d in bad})


def common(server=None, **changes):
    prepared = Prepared(Normalisation((0.5,), (0.25,)), np.array([1.0, 0.5]))
    values = {"accepted": {"hospital-1": 2, "hospital-2": 3}, "ranges": np.array([0.25, 2.0]), **changes}
    return CommonState("run", 3, state() if server is None else server, prepared, **values)


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_every_array_of_a_strategy_is_handed_over(name):
    """Hospitals compute the next state themselves, so they need all that the strategy keeps."""
    strategy = built(name)
    before = common(strategy.init(MODEL, LAYOUT))
    after = decode_common(encode_common(before), strategy.state_layout(LAYOUT))
    assert after.server == before.server
    assert after.digest == before.digest
    assert after.weights_digest == before.weights_digest


def test_what_is_not_yet_known_is_handed_over_as_such():
    before = CommonState("run", -1, state(), None, {})
    assert decode_common(encode_common(before), DECLARED) == before


def test_states_that_differ_in_anything_have_other_digests():
    one = common()
    others = [
        common(state().replace(kept=np.ones(3))),
        common(accepted={"hospital-1": 2, "hospital-2": 2}),
        common(ranges=None),
        common(ranges=np.array([0.25, 2.5])),
        dataclasses.replace(one, run="ruN"),
        dataclasses.replace(one, round=4),
        dataclasses.replace(one, prepared=None),
        dataclasses.replace(one, prepared=one.begun._replace(class_weights=None)),
        dataclasses.replace(one, prepared=one.begun._replace(normalisation=Normalisation((0.5,), (0.26,)))),
    ]
    assert len({each.digest for each in [one, common(), *others]}) == 1 + len(others)
    assert one.weights_digest == dataclasses.replace(one, run="other", round=9, prepared=None).weights_digest


def tampered(**changes):
    fields = msgpack.unpackb(encode_common(common()))
    fields.update(changes)
    return msgpack.packb(fields)


def with_server(**changes):
    fields = msgpack.unpackb(encode_common(common()))
    return tampered(server={**fields["server"], **changes})


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "not a common state"),
        (b"\x93", "not a common state"),
        (msgpack.packb([1, 2]), "not a common state"),
        (msgpack.packb({"version": 3}), "does not fit"),
        (tampered(version=2), "version '2', this package reads 3"),
        (tampered(server={}), "not those of this strategy"),
        (tampered(server=[]), "does not fit"),
        (tampered(more=1), "other fields"),
        (tampered(round="3"), "other fields"),
        (tampered(accepted={"hospital-1": "2"}), "other fields"),
        (tampered(normalisation=[["a"], [1.0]]), "a number is something else"),
        (tampered(ranges=b"123"), "buffer size"),
        (with_server(other=bytes(12)), "not those of this strategy"),
        (with_server(control=bytes(4)), r"control has shape \(1,\), \(2,\) expected"),
        (with_server(control=bytes(7)), "buffer size"),
        (with_server(control=[0.0, 0.0]), "does not fit"),
    ],
)
def test_a_hospital_refuses_any_other_message_in_one_line(data, message):
    with pytest.raises(MessageError, match=message) as caught:
        decode_common(data, DECLARED)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_pass_for_a_state_or_end_in_another_error(data):
    for read in (lambda d: decode_common(d, DECLARED), decode_told):
        with pytest.raises(MessageError):
            read(data)


@given(st.data())
def test_a_damaged_message_is_refused_or_has_the_declared_arrays(data):
    message = bytearray(encode_common(common()))
    message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_common(bytes(message), DECLARED)
    except MessageError:
        return
    assert found.server.declared == DECLARED


TOLD = Told("train", 3, "base", ("a", "b", "c"), True, ("a", "b"), np.array([-5, 2**31 - 1]))


@pytest.mark.parametrize("words", [[-5, 2**31 - 1], [-(2**31), 7], [2**31, 0], [-(2**31) - 1], [0.5, -1.0]])
def test_a_sum_is_told_in_as_few_bytes_as_hold_it(words):
    told = TOLD._replace(words=np.array(words))
    found = decode_told(encode_told(told))
    assert found._replace(words=None) == told._replace(words=None)
    assert np.array_equal(found.words, told.words)
    size = msgpack.unpackb(encode_told(told))["words"]
    wide = told.words.dtype.kind == "i" and not -(2**31) <= min(words) <= max(words) < 2**31
    assert len(size) == len(words) * (8 if wide else 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"round": True},
        {"senders": "ab"},
        {"senders": [1]},
        {"dtype": "<f8"},
        {"words": b"123"},
        {"evaluate": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_sum_of_another_form_is_refused(changes):
    fields = {**msgpack.unpackb(encode_told(TOLD)), **changes}
    with pytest.raises(MessageError, match="a sum that does not fit"):
        decode_told(msgpack.packb(fields))


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_a_checkpoint_keeps_all_arrays_bit_for_bit(name, tmp_path):
    strategy = built(name)
    server = strategy.init(MODEL, LAYOUT)
    rng = np.random.RandomState(1)
    server = server.replace(**{key: rng.normal(size=array.shape) for key, array in server.items()})
    before = RunState("run", 3, server, None, {"hospital-1": 2}, ())
    save_checkpoint(tmp_path / "c", Checkpoint(before, {}, {}))
    after = load_checkpoint(tmp_path / "c").state
    assert after.server == server
    assert after.server.declared == strategy.state_layout(LAYOUT)


def test_a_checkpoint_whose_declaration_does_not_fit_its_arrays_is_refused(tmp_path):
    server = state()
    server.__dict__["declared"] = (*DECLARED[:3], StateArray("control", 9, AUXILIARY))
    save_checkpoint(tmp_path / "c", Checkpoint(RunState("run", 0, server, None, {}, ()), {}, {}))
    with pytest.raises(CheckpointError, match=r"cannot be read \(control has shape"):
        load_checkpoint(tmp_path / "c")


def test_an_older_checkpoint_is_refused_in_one_line(tmp_path):
    save_checkpoint(tmp_path / "c", Checkpoint(RunState("run", 0, state(), None, {}, ()), {}, {}))
    first, _, body = (tmp_path / "c").read_bytes().partition(b"\n")
    line = {**json.loads(first.decode()), "version": 1}
    (tmp_path / "c").write_bytes(json.dumps(line).encode() + b"\n" + body)
    with pytest.raises(CheckpointError, match="version 1, this package reads 4: resume with the version"):
        load_checkpoint(tmp_path / "c")


def test_a_checkpoint_of_another_strategy_or_network_is_not_resumed(toy):
    settings = Settings(data="toy", hospitals=2, image_size=12)
    federated = load_federated_data(settings)
    other = assemble(settings.replace(strategy="fedadam", server_lr=0.1), federated)
    checkpoint = Checkpoint(other.federation.state, {}, {})
    with pytest.raises(SettingsError, match="another network's state"):
        assemble(settings, federated, checkpoint)


@pytest.mark.parametrize("server_lr", [0.25, 1.5, 4.0])
@pytest.mark.parametrize("name", STRATEGIES.names)
def test_statistics_are_averaged_whatever_the_server_step(name, server_lr):
    # Means 1 and 5, variances 0.0625 and 0.25 with weights 3 and 1: the variance shrinks from 0.5.
    strategy = built(name, server_lr=server_lr)
    server = strategy.init(MODEL, LAYOUT)
    total = 0.0
    for mean, variance, weight in ((1.0, 0.0625, 0.75), (5.0, 0.25, 0.25)):
        delta = np.array([0.1, 0.1, 0.1, mean - 4.0, variance - 0.5], np.float32)
        result = LocalResult(delta, 4, 48, 0.0, None)
        total = total + strategy.contribute(result, weight, LAYOUT, server, None)[0]
    after = strategy.apply(server, strategy.unpack(total, LAYOUT), LAYOUT, 2)
    assert after["statistics"].tolist() == [2.0, 0.109375]


def test_the_server_step_moves_parameters_alone_by_hand():
    # One hospital: changes 2, 4, 6 of the parameters, -4 of the mean, -0.4375 of the variance.
    strategy = FedAvg(server_lr=1.5)
    server = strategy.init(MODEL, LAYOUT)
    result = LocalResult(np.array([2.0, 4.0, 6.0, -4.0, -0.4375], np.float32), 1, 1, 0.0, None)
    vector, _ = strategy.contribute(result, 1.0, LAYOUT, server, None)
    after = strategy.apply(server, strategy.unpack(vector, LAYOUT), LAYOUT, 1)
    assert after.model.tolist() == [4.0, 8.0, 12.0, 0.0, 0.0625]


@given(
    name=st.sampled_from(STRATEGIES.names),
    server_lr=st.floats(1e-3, 100.0),
    variances=st.lists(st.floats(0.0, 1e3, width=32), min_size=1, max_size=4),
    start=st.floats(0.0, 1e3, width=32),
    error=st.floats(-0.1, 0.1),
)
def test_a_variance_is_never_negative(name, server_lr, variances, start, error):
    """Also where the protection's rounding put the opened sum off by ``error``."""
    strategy = built(name, server_lr=server_lr)
    server = strategy.init(np.array([1.0, 1.0, 1.0, 0.0, start], np.float32), LAYOUT)
    total = 0.0
    for variance in variances:
        delta = np.array([0.0, 0.0, 0.0, 0.0, np.float32(variance) - np.float32(start)], np.float32)
        result = LocalResult(delta, 2, 16, 0.0, None)
        total = total + strategy.contribute(result, 0.3, LAYOUT, server, None)[0].astype(np.float64)
    total[4] += error
    after = strategy.apply(server, strategy.unpack(total, LAYOUT), LAYOUT, len(variances))
    assert after["statistics"][1] >= 0.0


def test_strategies_need_no_torch():
    code = "import sys, skinfl.federation.strategies; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]).decode().strip() == "False"
