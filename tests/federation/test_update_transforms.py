"""Update transforms: their two halves, and the same sum under every strategy and protection."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from comparison import TWO_ROUNDS, built, gentle, grid_of, missing, on_grid, protections
from samples import SMALL_RUN
from torch import nn

from skinfl.assembly import assemble, load_federated_data, transforms_of
from skinfl.errors import MessageError, ProtectionError, SettingsError
from skinfl.federation.events import RoundFinished
from skinfl.federation.local import LocalResult
from skinfl.federation.strategies import STRATEGIES, build_strategy
from skinfl.federation.transforms import (
    TRANSFORMS,
    HospitalContext,
    NormClipping,
    Pipeline,
    ServerContext,
    UpdateTransform,
    build_pipeline,
)
from skinfl.federation.update import StateLayout
from skinfl.protection import PROTECTIONS, build_protection
from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout, Segment
from skinfl.seeds import derive
from skinfl.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
#: 9 trained parameters (with BatchNorm's scale and shift), 6 of its statistics
MODEL = StateLayout(nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm2d(3)))
HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")


def at_hospital(layout, round=1, hospital="hospital-1", accepted=-1):
    return HospitalContext(
        "run", round, layout, lambda *purpose: derive(0, round, *purpose), hospital, accepted
    )


def at_server(layout, round=1, senders=HOSPITALS):
    return ServerContext("run", round, layout, lambda *purpose: derive(0, round, *purpose), senders)


def contributions(name):
    """Return a strategy's layout and three hospitals' contributions, changes of norms 0.8 to 1.8."""
    strategy = build_strategy(name, Settings(strategy=name).asdict(), 100)
    server = strategy.init(np.zeros(MODEL.size, np.float32), MODEL)
    rng = np.random.default_rng(4)
    vectors = {}
    for k, hospital in enumerate(HOSPITALS):
        delta = rng.normal(size=MODEL.size)
        delta[: MODEL.n_parameters] *= 0.8 * 1.5**k / np.linalg.norm(delta[: MODEL.n_parameters])
        gradient = rng.normal(size=MODEL.n_parameters).astype(np.float32)
        result = LocalResult(delta.astype(np.float32), 3 + k, 20, 0.1, gradient)
        vectors[hospital], _ = strategy.contribute(result, (2 + k) / 4, MODEL, server, None)
    return strategy.contribution_layout(MODEL), vectors


def clipping():
    return Pipeline([NormClipping(1.0)])


def send(protection, make, layout, vectors, round=1, roles=None):
    """Return what the server's halves give of the opened sum, the figures, and the roles."""
    roles = roles or protection.setup(HOSPITALS)
    exchange = Exchange("run", round, make().layout(layout))
    releases = {}
    for name, vector in vectors.items():
        sent = make().at_hospital(vector, at_hospital(layout, round, name))
        protected = roles.hospitals[name].protect(sent, exchange)
        releases[name] = protected.release
        for party, message in protected.messages.items():
            roles.aggregators[party].receive(message, exchange)
    combined = {
        party: side.combine(HOSPITALS, exchange, releases) for party, side in roles.aggregators.items()
    }
    opened = roles.opener.open(combined, exchange)
    for side in roles.hospitals.values():
        if opened.ranges is not None:
            side.set_ranges(opened.ranges)
    total, figures = make().at_server(opened.total, at_server(layout, round, opened.senders))
    return total, figures, roles


# clipping, by hand


LAYOUT = Layout(
    [
        Segment("model/w", 2),
        Segment("model/b", 1),
        Segment("statistics/mean", 1),
        Segment("control/w", 2),
        Segment("counts", 2, "count"),
    ]
)
#: weight 0.5, so a change of (2, 4, 4) with norm 6
VECTOR = np.array([1, 2, 2, 9, 7, 8, 0.5, 3], np.float32)


def test_a_change_within_the_bound_is_left_alone():
    clipping = NormClipping(clip_norm=6.0)
    sent = clipping.at_hospital(VECTOR, at_hospital(LAYOUT))
    assert sent.tolist() == [*VECTOR.tolist(), 0.0]
    assert sent.dtype == np.float32


def test_a_longer_change_is_scaled_down_to_the_bound_whatever_the_weight():
    clipping = NormClipping(clip_norm=3.0)
    before = VECTOR.copy()
    sent = clipping.at_hospital(VECTOR, at_hospital(LAYOUT))
    assert sent.tolist() == [0.5, 1, 1, 9, 7, 8, 0.5, 3, 1.0]  # statistics, control and counts stay
    assert np.linalg.norm(sent[:3]) / sent[6] == pytest.approx(3.0)
    assert np.array_equal(VECTOR, before)
    assert clipping.layout(LAYOUT).size == len(sent)
    assert clipping.layout(LAYOUT).segments[-1].kind == "count"


def test_the_server_learns_how_many_were_clipped_and_not_which():
    clipping = NormClipping(clip_norm=3.0)
    total, figures = clipping.at_server(np.array([*VECTOR, 1.9999]), at_server(LAYOUT))
    assert total.tolist() == VECTOR.tolist()
    assert figures == {"clipped_hospitals": 2.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_change_that_is_not_finite_is_not_sent(bad):
    vector = VECTOR.copy()
    vector[1] = bad
    with pytest.raises(ProtectionError, match="not finite"):
        NormClipping().at_hospital(vector, at_hospital(LAYOUT))


@pytest.mark.parametrize("norm", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_bound_is_refused(norm):
    with pytest.raises(SettingsError, match=r"clip_norm = .*give a positive number"):
        NormClipping(clip_norm=norm)


# every strategy under every protection


@pytest.mark.parametrize("strategy", STRATEGIES.names)
@pytest.mark.parametrize("choice", protections())
def test_the_opened_sum_is_the_sum_of_clipped_contributions(strategy, choice):
    layout, vectors = contributions(strategy)
    expected = np.zeros(layout.size)
    clipped = 0
    for vector in vectors.values():
        own = vector.astype(np.float64)
        change = own[: MODEL.n_parameters] / own[layout.slices()["counts"]][0]
        factor = min(1.0, 1.0 / np.linalg.norm(change))
        clipped += factor < 1
        own[: MODEL.n_parameters] *= factor
        expected += own
    assert clipped >= 1
    roles, scheme = None, built(choice)
    for number in (1, 2):  # bfv quantises from the second round on
        total, figures, roles = send(scheme, clipping, layout, vectors, number, roles)
        # the protection's own error, and that of the float32 that a clipped value is sent as
        largest = max(float(np.abs(vector).max()) for vector in vectors.values())
        tolerance = scheme.error_bound(3, largest) + 3 * 2.0**-25
        assert np.abs(total - expected).max() <= tolerance
        assert figures == {"clipping": {"clipped_hospitals": clipped}}


@pytest.mark.parametrize("strategy", STRATEGIES.names)
def test_secret_sharing_and_encryption_give_the_same_bits(strategy):
    layout, vectors = contributions(strategy)
    totals = [send(each, clipping, layout, vectors)[0].tolist() for each in on_grid(3)]
    assert len(totals) > 3 and all(total == totals[0] for total in totals)


# a list of transforms


@dataclass
class Halves(UpdateTransform):
    """Sends a half of the values, the same ones at all hospitals, and keeps the rest for the next round."""

    name: ClassVar[str] = "halves"
    share: float = 0.5
    kept: np.ndarray = field(default=None, init=False)

    def layout(self, layout):
        return Layout([Segment("sparse", self._size(layout)), Segment("counts", 2, "count")])

    def at_hospital(self, vector, context):
        values = vector[:-2] + (0 if self.kept is None else self.kept)
        chosen = self._chosen(context)
        self.kept = values.copy()
        self.kept[chosen] = 0
        return np.concatenate([values[chosen], vector[-2:]])

    def at_server(self, total, context):
        full = np.zeros(context.layout.size)
        full[self._chosen(context)] = total[:-2]
        full[-2:] = total[-2:]
        return full, {"sent": float(len(total) - 2)}

    def state(self):
        return {} if self.kept is None else {"kept": self.kept}

    def load_state(self, state):
        self.kept = state.get("kept")

    def _size(self, layout):
        return int((layout.size - 2) * self.share)

    def _chosen(self, context):
        rng = np.random.default_rng(context.seed("coordinates"))
        return rng.permutation(context.layout.size - 2)[: self._size(context.layout)]


def test_halves_run_in_order_and_back_and_a_vector_may_get_shorter():
    pipeline = Pipeline([Halves(), NormClipping(1.0)])
    layout = pipeline.layout(LAYOUT)
    assert [s.name for s in layout.segments] == ["sparse", "counts", "clipping/clipped"]
    sent = pipeline.at_hospital(VECTOR, at_hospital(LAYOUT))
    assert sent.shape == (layout.size,) == (3 + 2 + 1,)
    total, figures = pipeline.at_server(sent.astype(np.float64) * 2, at_server(LAYOUT))
    assert figures == {"clipping": {"clipped_hospitals": 0.0}, "halves": {"sent": 3.0}}
    assert np.count_nonzero(total[:6]) == 3
    assert set(total[:6]) <= {0.0, *(2 * VECTOR[:6])} and total[6:].tolist() == [1.0, 6.0]


def test_coordinates_are_those_of_the_round_at_all_hospitals_and_the_server():
    pipeline = Pipeline([Halves()])
    rounds = []
    for number in (1, 2, 3):
        sent = [
            Pipeline([Halves()]).at_hospital(VECTOR, at_hospital(LAYOUT, number, name)) for name in HOSPITALS
        ]
        assert all(np.array_equal(s, sent[0]) for s in sent)
        total, _ = pipeline.at_server(np.sum(sent, axis=0, dtype=np.float64), at_server(LAYOUT, number))
        assert np.array_equal(total[total != 0], 3 * VECTOR[total != 0])
        rounds.append(total.tolist())
    assert len(set(map(tuple, rounds))) > 1


def test_a_vector_that_gets_shorter_goes_through_a_protection():
    vectors = {name: VECTOR * (k + 1) for k, name in enumerate(HOSPITALS)}
    plain, figures, _ = send(build_protection("plaintext"), lambda: Pipeline([Halves()]), LAYOUT, vectors)
    shared, _, _ = send(build_protection("smpc"), lambda: Pipeline([Halves()]), LAYOUT, vectors)
    assert figures == {"halves": {"sent": 3.0}}
    assert np.count_nonzero(plain[:6]) == 3 and np.abs(plain - shared).max() < 3e-7 * 8


def test_state_is_kept_by_name():
    first = Pipeline([Halves(), NormClipping()])
    first.at_hospital(VECTOR, at_hospital(LAYOUT))
    state = first.state()
    assert list(state) == ["halves/kept"]
    second = Pipeline([Halves(), NormClipping()])
    second.load_state(state)
    contexts = at_hospital(LAYOUT, 2)
    assert np.array_equal(second.at_hospital(VECTOR, contexts), first.at_hospital(VECTOR, contexts))


def test_no_transforms_change_nothing():
    empty = Pipeline()
    assert empty.layout(LAYOUT) == LAYOUT and empty.layout(LAYOUT).digest == LAYOUT.digest
    assert empty.at_hospital(VECTOR, at_hospital(LAYOUT)) is VECTOR
    assert empty.at_server(VECTOR, at_server(LAYOUT)) == (VECTOR, {})
    assert (empty.state(), empty.describe(), empty.fingerprint) == ({}, [], "")


def test_any_other_list_has_another_digest():
    pipelines = [
        Pipeline(),
        Pipeline([NormClipping(1.0)]),
        Pipeline([NormClipping(2.0)]),
        Pipeline([Halves(), NormClipping(1.0)]),
        Pipeline([Halves(0.6), NormClipping(1.0)]),
    ]
    assert len({p.layout(LAYOUT).digest for p in pipelines}) == len(pipelines)
    assert Pipeline([NormClipping(1.0)]).layout(LAYOUT).digest == pipelines[1].layout(LAYOUT).digest


def test_a_message_made_under_other_transforms_is_refused():
    roles = build_protection("smpc").setup(HOSPITALS)
    mine, theirs = Pipeline([NormClipping(1.0)]), Pipeline([NormClipping(2.0)])
    sent = mine.at_hospital(VECTOR, at_hospital(LAYOUT))
    messages = roles.hospitals["hospital-1"].protect(sent, Exchange("run", 1, mine.layout(LAYOUT))).messages
    with pytest.raises(MessageError, match="layout"):
        roles.aggregators["party-1"].receive(messages["party-1"], Exchange("run", 1, theirs.layout(LAYOUT)))


@pytest.mark.parametrize("half", ["hospital", "server"])
def test_a_half_that_does_not_keep_to_its_layout_is_named(half):
    class Wrong(UpdateTransform):
        name = "wrong"

        def at_hospital(self, vector, context):
            return vector[1:] if half == "hospital" else vector

        def at_server(self, total, context):
            return total[1:], {}

    pipeline = Pipeline([Wrong()])
    with pytest.raises(
        ProtectionError, match=rf"{half}'s half of transform 'wrong' gave shape \(7,\).* 8 values"
    ):
        pipeline.at_hospital(VECTOR, at_hospital(LAYOUT))
        pipeline.at_server(VECTOR, at_server(LAYOUT))


# settings


def test_lists_come_from_settings_each_time_anew():
    settings = Settings(transforms=" clipping ,", clip_norm=2.5)
    (clipping,) = transforms_of(settings).transforms
    assert clipping == NormClipping(2.5)
    assert transforms_of(settings).transforms[0] is not clipping
    assert transforms_of(Settings()).transforms == ()
    assert Pipeline([clipping]).describe() == [{"name": "clipping", "clip_norm": 2.5}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"transforms": "cliping"}, "unknown transforms 'cliping': did you mean 'clipping'"),
        ({"transforms": "clipping,clipping"}, "names 'clipping' twice"),
        ({"transforms": "clipping", "clip_norm": float("inf")}, "clip_norm = inf: must be a finite number"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0: must be at least"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(changes, reason):
    with pytest.raises(SettingsError, match=reason):
        Settings(**changes)


@pytest.mark.parametrize("name", TRANSFORMS.names)
def test_every_transform_has_its_registered_name_and_can_be_built(name):
    (transform,) = build_pipeline(name, {}).transforms
    assert transform.name == name
    assert replace(transform) == transform


# whole federations

SMALL = {**SMALL_RUN, "lr": 0.05, "momentum": 0.0}


def play(**changes):
    settings = Settings(**{**SMALL, **changes})
    assembly = assemble(settings, load_federated_data(settings))
    records = [e.record for e in assembly.federation.run() if isinstance(e, RoundFinished)]
    return assembly, records


@pytest.mark.parametrize("strategy", STRATEGIES.names)
def test_federations_with_clipping_give_one_model_under_all_protections(toy, strategy):
    models = {}
    for entry in sorted(PROTECTIONS, key=lambda entry: entry.name != "plaintext"):
        if missing(entry):
            continue
        assembly, records = play(
            strategy=strategy,
            protection=entry.name,
            transforms="clipping",
            clip_norm=0.01,
            **gentle(strategy),
        )
        model, bound = assembly.federation.state.server.model, assembly.protection.error_bound(3, 1.0)
        models.setdefault("plaintext", model)
        assert [r.transforms for r in records] == [{"clipping": {"clipped_hospitals": 3.0}}] * 2
        assert all(r.max_abs_difference_from_plaintext_sum <= bound for r in records)
        assert np.abs(model - models["plaintext"]).max() <= TWO_ROUNDS * bound
        assert np.array_equal(model, models.setdefault(grid_of(assembly.protection, 3), model))


def test_clipping_bounds_how_far_a_round_moves_the_model(toy):
    start = play(rounds=1, lr=1e-8)[0].federation.state.server.model
    for norm in (0.01, 0.1):
        assembly, _ = play(rounds=1, transforms="clipping", clip_norm=norm)
        parameters = assembly.layout.n_parameters
        moved = (assembly.federation.state.server.model - start)[:parameters]
        assert 0.3 * norm < np.linalg.norm(moved) <= norm * (1 + 1e-3)


def test_a_bound_that_nobody_reaches_changes_nothing(toy):
    plain, records = play()
    clipped, with_transform = play(transforms="clipping", clip_norm=1e6)
    assert np.array_equal(plain.federation.state.server.model, clipped.federation.state.server.model)
    assert [r.transforms for r in records] == [{}, {}]
    assert [r.transforms["clipping"]["clipped_hospitals"] for r in with_transform] == [0.0, 0.0]


def test_what_a_transform_keeps_is_in_the_hospitals_state(toy):
    TRANSFORMS.register("halves", "for a test", Halves)
    try:
        assembly, _ = play(rounds=1, transforms="halves")
    finally:
        TRANSFORMS.unregister("halves")
    agent = assembly.transport._agents["hospital-1"]
    state = agent.state()
    kept = state["transforms/halves/kept"]
    assert np.count_nonzero(kept) > 0
    agent.load_state({**state, "transforms/halves/kept": kept * 2})
    assert np.array_equal(agent.state()["transforms/halves/kept"], kept * 2)
