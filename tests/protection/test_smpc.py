import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import LAYOUT, hospitals, run_round, vectors

from skinfl.errors import MessageError, ProtectionError, SettingsError
from skinfl.protection import build_protection, keys
from skinfl.protection.base import Exchange, Roles
from skinfl.protection.encoder import BLOCK
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.prg import Stream, new_seed
from skinfl.protection.roles import begin_update
from skinfl.protection.smpc.field import Field, UniformElements
from skinfl.protection.smpc.ring import Ring
from skinfl.protection.smpc.shamir import evaluation, recombine, share

SCHEMES = ("additive", "shamir")


def test_stream_is_aes_counter_mode():
    # NIST SP 800-38A, F.5.1, CTR-AES128: key stream = output block of the first counter
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    integers = Stream(key + counter).words(4, np.dtype("<u4"))
    assert integers.tobytes() == bytes.fromhex("ec8cdf7398607cb0f2d21675ea9ea1e4")


def test_stream_does_not_depend_on_how_it_is_drawn():
    seed, dtype = new_seed(), np.dtype("<u4")
    whole = Stream(seed).words(1000, dtype).tolist()
    pieces = Stream(seed)
    assert [w for n in (1, 3, 500, 496) for w in pieces.words(n, dtype).tolist()] == whole
    assert Stream(new_seed()).words(1000, dtype).tolist() != whole


@pytest.mark.parametrize("bits", [32, 64])
def test_field_agrees_with_python_encoding(bits):
    field = Field(bits)
    p = field.prime
    edges = [0, 1, 2, p - 1, p - 2, p // 2, p // 2 + 1, 2 ** (bits // 2) - 1, 123456789 % p]
    elements = np.array(edges, np.uint64)
    for factor in edges:
        assert field.scale(elements, factor).tolist() == [e * factor % p for e in edges]
        assert field.add(elements, np.uint64(factor)).tolist() == [(e + factor) % p for e in edges]
    assert field.reduce(np.array([2**64 - 1, p, 2 * p, 0], np.uint64)).tolist() == [(2**64 - 1) % p, 0, 0, 0]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([32, 64]), st.lists(st.integers(0, 2**61 - 2), min_size=3, max_size=6), st.data())
def test_combine_is_a_sum_of_products(bits, numbers, data):
    field = Field(bits)
    factors = data.draw(
        st.lists(st.integers(0, field.prime - 1), min_size=len(numbers), max_size=len(numbers))
    )
    numbers = [n % field.prime for n in numbers]
    got = field.combine([np.array([n], np.uint64) for n in numbers], factors)
    assert got.tolist() == [sum(n * f for n, f in zip(numbers, factors)) % field.prime]


@pytest.mark.parametrize("bits", [32, 64])
def test_signed_numbers_survive_the_field(bits):
    field = Field(bits)
    numbers = np.array([0, 1, -1, field.capacity, -field.capacity], np.int64)
    elements = field.from_signed(numbers)
    assert int(elements.max()) < field.prime
    assert field.to_signed(elements).tolist() == numbers.tolist()


def test_lagrange_by_hand():
    # f(x) = 5 + 3x through (1, 8) and (2, 11): f(0) = 2*8 - 11, f(3) = 2*11 - 8
    field = Field(32)
    assert field.lagrange([1, 2], 0) == [2, field.prime - 1]
    assert field.combine(
        [np.array([8], np.uint64), np.array([11], np.uint64)], field.lagrange([1, 2], 3)
    ).tolist() == [14]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("threshold", "parties"), [(t, n) for n in range(2, 6) for t in range(2, n + 1)])
def test_sharing_and_recombining_are_each_others_reverse(bits, threshold, parties):
    field = Field(bits)
    secret = np.array([0, 1, field.prime - 1, 5], np.uint64)
    drawn = [UniformElements(new_seed(), field).draw(4) for _ in range(threshold - 1)]
    first, rest = list(range(1, threshold)), list(range(threshold, parties + 1))
    shares = dict(zip(first, drawn))
    shares.update(zip(rest, share(field, secret, drawn, evaluation(field, [0, *first], rest))))
    for chosen in itertools.permutations(range(1, parties + 1)):
        matrix = evaluation(field, chosen[:threshold], [0, *chosen[threshold:]])
        opened, agree = recombine(field, [shares[point] for point in chosen], matrix)
        assert agree and opened.tolist() == secret.tolist()
    wrong = {**shares, parties: field.add(shares[parties], np.uint64(1))}
    _, agree = recombine(
        field,
        [wrong[point] for point in range(1, parties + 1)],
        evaluation(field, range(1, threshold + 1), [0, *range(threshold + 1, parties + 1)]),
    )
    assert agree == (threshold == parties)


def test_sharing_by_hand():
    # f(x) = 5 + 3x: the secret is 5, f(1) = 8 is drawn, f(2) = 11 and f(3) = 14 follow
    field = Field(32)
    matrix = evaluation(field, [0, 1], [2, 3])
    shares = share(field, np.array([5], np.uint64), [np.array([8], np.uint64)], matrix)
    assert [s.tolist() for s in shares] == [[11], [14]]
    assert recombine(field, shares, evaluation(field, [2, 3], [0]))[0].tolist() == [5]


def test_rejected_draws_are_replaced_and_do_not_depend_on_blocks(monkeypatch):
    field = Field(32)
    field.prime = 3  # integers of two bits: a quarter of all draws is rejected
    seed = new_seed()
    whole = UniformElements(seed, field).draw(4000)
    pieces = UniformElements(seed, field)
    assert np.concatenate([pieces.draw(n) for n in (1, 7, 1992, 2000)]).tolist() == whole.tolist()
    counts = np.bincount(whole.astype(int))
    assert len(counts) == 3 and counts.min() > 4000 / 3 - 6 * np.sqrt(4000 * 2 / 9)


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("parties", [2, 3, 4, 7, "hospitals"])
def test_additive_sum_is_the_fixed_point_sum(parties, ring):
    protection = build_protection("smpc", parties=parties, ring=ring, precision=20)
    result = run_round(protection, vectors(5))
    expected = np.sum([np.rint(v.astype(np.float64) * 2**20) for v in vectors(5).values()], axis=0) / 2**20
    values = np.delete(np.arange(LAYOUT.size), [157, 158])
    assert result.opened.total[values].tolist() == expected[values].tolist()
    assert np.abs(result.opened.total - result.plain)[157:159].max() <= 5 * 2.0**-28
    assert result.opened.senders == tuple(hospitals(5))


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize(("threshold", "parties"), [(t, n) for n in range(2, 6) for t in range(2, n + 1)])
def test_shamir_opens_from_every_set_of_threshold_parties(threshold, parties, ring):
    protection = build_protection(
        "smpc", smpc_scheme="shamir", parties=parties, threshold=threshold, ring=ring, precision=16
    )
    roles = protection.setup(hospitals(3))
    result = run_round(protection, vectors(3), roles=roles)
    expected = np.sum([np.rint(v.astype(np.float64) * 2**16) for v in vectors(3).values()], axis=0) / 2**16
    assert result.opened.total[:157].tolist() == expected[:157].tolist()
    exchange = Exchange("run", 1, LAYOUT)
    for chosen in itertools.combinations(result.combined, threshold):
        opened = roles.opener.open({p: result.combined[p] for p in chosen}, exchange)
        assert opened.total.tolist() == result.opened.total.tolist()
    for chosen in itertools.combinations(result.combined, threshold - 1):
        with pytest.raises(ProtectionError, match=f"{threshold} are needed to open|no party"):
            roles.opener.open({p: result.combined[p] for p in chosen}, exchange)


def test_additive_sharing_says_that_it_cannot_open_without_a_party():
    with pytest.raises(ProtectionError, match=r"no answer from party-2: .*all 3 parties only.*shamir"):
        run_round(build_protection("smpc"), vectors(3), lost=["party-2"])


def test_a_wrong_sum_of_a_spare_party_is_noticed():
    protection = build_protection("smpc", smpc_scheme="shamir", parties=3, threshold=2)
    ring, directory = keys.generate(hospitals(3), protection.party_names(hospitals(3)))
    secret = protection.new_key(3)
    roles = Roles(
        {n: protection.hospital(n, k, directory, secret) for n, k in ring.hospitals.items()},
        {n: protection.party(n, k, directory) for n, k in ring.parties.items()},
        protection.opener(ring.opener, directory),
    )
    party = roles.aggregators["party-3"]
    honest_add = party.add

    def lie(contents, exchange, writer):
        honest_add([*contents, new_seed()], exchange, writer)  # a share that no hospital sent

    party.add = lie
    with pytest.raises(ProtectionError, match="no common polynomial"):
        run_round(protection, vectors(3), roles=roles)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_shares_of_another_length_are_refused(scheme):
    """A hospital that seals something else than a share is named, and so is a party's short sum."""
    protection = build_protection("smpc", smpc_scheme=scheme)
    roles = protection.setup(hospitals(3))
    exchange = Exchange("run", 1, LAYOUT)
    side = roles.hospitals["hospital-1"]
    for party, link in side._links.items():
        writer = begin_update(side._session, link, "hospital-1", party, exchange)
        writer.write(b"neither seed nor share")
        with pytest.raises(MessageError, match="'hospital-1' refused: its share has 22 bytes"):
            roles.aggregators[party].receive(writer.finish(), exchange)
    for aggregator in roles.aggregators.values():
        aggregator.add = lambda contents, exchange, writer: writer.write(b"short")
    with pytest.raises(MessageError, match="'party-1' refused: its sum has 5 bytes"):
        run_round(protection, vectors(3), roles=roles)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_hospital_that_vanishes_while_sharing_is_left_out_by_all(scheme):
    roles = build_protection("smpc", smpc_scheme=scheme).setup(hospitals(3))
    exchange, values = Exchange("run", 1, LAYOUT), vectors(3)
    received = {party: set() for party in roles.aggregators}
    for name in hospitals(3):
        messages = roles.hospitals[name].protect(values[name], exchange).messages
        if name == "hospital-2":
            del messages["party-3"]
        for party, message in messages.items():
            received[party].add(roles.aggregators[party].receive(message, exchange))
    senders = sorted(set.intersection(*received.values()))
    combined = {p: a.combine(senders, exchange) for p, a in roles.aggregators.items()}
    opened = roles.opener.open(combined, exchange)
    assert opened.senders == ("hospital-1", "hospital-3")
    plain = values["hospital-1"].astype(np.float64) + values["hospital-3"]
    assert np.abs(opened.total - plain).max() < 1e-6


def test_shares_outside_the_field_are_refused():
    protection = build_protection("smpc", smpc_scheme="shamir")
    roles = protection.setup(hospitals(3))
    exchange = Exchange("run", 1, LAYOUT)
    side = roles.hospitals["hospital-1"]
    integers = side._encoder.size(LAYOUT)
    writer = begin_update(side._session, side._links["party-1"], "hospital-1", "party-1", exchange)
    writer.write(b"\xff" * (4 * integers))
    with pytest.raises(MessageError, match="its share isn't of the field"):
        roles.aggregators["party-1"].receive(writer.finish(), exchange)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_hospitals_that_vanish_are_left_out(scheme):
    result = run_round(
        build_protection("smpc", smpc_scheme=scheme), vectors(5), senders=["hospital-5", "hospital-2"]
    )
    assert result.opened.senders == ("hospital-2", "hospital-5")
    assert np.abs(result.opened.total - result.plain).max() < 1e-6


@pytest.mark.parametrize(("options", "loss"), [({}, 2.0**-23), ({"rounding": "truncate"}, 2.0**-22)])
def test_stated_error_bound(options, loss):
    values = vectors(5, seed=8)
    result = run_round(build_protection("smpc", **options), values)
    error = np.abs(result.opened.total - result.plain)
    assert 0 < np.delete(error, [157, 158]).max() <= 5 * loss


def test_uploads_are_one_share_and_seeds():
    layout = Layout([Segment("w", 200_000)])
    for options, bytes_per_value in (
        ({}, 4),
        ({"parties": 7}, 4),
        ({"ring": 64}, 8),
        ({"smpc_scheme": "shamir"}, 8),
        ({"smpc_scheme": "shamir", "parties": 5, "threshold": 5}, 4),
    ):
        protection = build_protection("smpc", **options)
        roles = protection.setup(hospitals(2))
        sent = roles.hospitals["hospital-1"].protect(np.zeros(200_000, np.float32), Exchange("r", 1, layout))
        total = sum(map(len, sent.messages.values()))
        assert bytes_per_value * 200_000 < total < bytes_per_value * 200_000 + 500 * len(sent.messages)


def test_full_shares_go_round_the_parties():
    protection = build_protection("smpc", parties=3)
    roles = protection.setup(hospitals(6))
    longest = []
    for name, value in vectors(6).items():
        sent = roles.hospitals[name].protect(value, Exchange("r", 1, LAYOUT)).messages
        longest.append(max(sent, key=lambda party: len(sent[party])))
    assert longest == ["party-1", "party-2", "party-3"] * 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_vectors_longer_than_a_block(scheme):
    layout = Layout([Segment("w", 2 * BLOCK + 3), Segment("n", 1, "count")])
    result = run_round(build_protection("smpc", smpc_scheme=scheme), vectors(2, layout), layout=layout)
    assert np.abs(result.opened.total - result.plain).max() < 2e-6


def test_progress_is_told():
    layout = Layout([Segment("w", BLOCK + 1)])
    for scheme in SCHEMES:
        side = build_protection("smpc", smpc_scheme=scheme).setup(hospitals(2)).hospitals["hospital-1"]
        seen = []
        side.progress = lambda done, total, seen=seen: seen.append((done, total))
        side.protect(np.zeros(layout.size), Exchange("r", 1, layout))
        size = side._encoder.size(layout)
        assert seen == [(BLOCK, size), (BLOCK + 1, size), (size, size)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"smpc_scheme": "additve"}, "did you mean 'additive'"),
        ({"parties": 1}, "one party alone sees everything"),
        ({"parties": 0}, "give 2 to 1000"),
        ({"parties": True}, "give 2 to 1000"),
        ({"parties": "clinics"}, "or 'hospitals'"),
        ({"threshold": 2}, "always needs all parties"),
        ({"smpc_scheme": "shamir", "threshold": 1}, "must be 2 to the number of parties"),
        ({"smpc_scheme": "shamir", "threshold": 4}, "must be 2 to the number of parties, 3"),
        ({"ring": 48}, "32 or 64 bits"),
        ({"ring": 48, "smpc_scheme": "shamir"}, "32 or 64 bits"),
        ({"precision": -1}, "0 to 52"),
        ({"precision": 2.5}, "0 to 52"),
        ({"clip": 0}, "positive number"),
        ({"clip": float("nan")}, "positive number"),
        ({"clip": "64"}, "positive number"),
        ({"rounding": "stochastic"}, "valid: nearest, truncate"),
    ],
)
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(SettingsError, match=reason):
        build_protection("smpc", **options)


def test_shamir_between_few_hospitals_checks_its_threshold_at_setup():
    protection = build_protection("smpc", smpc_scheme="shamir", parties="hospitals", threshold=4)
    with pytest.raises(SettingsError, match="must be 2 to the number of parties, 3"):
        protection.setup(hospitals(3))


def test_what_could_overflow_is_refused_at_setup():
    protection = build_protection("smpc", precision=24)
    with pytest.raises(
        ProtectionError, match=r"precision 24 could overflow additive sharing in 32 bits.*at most 22"
    ):
        protection.setup(hospitals(5))
    build_protection("smpc", precision=24, ring=64).setup(hospitals(5))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ring", [32, 64])
def test_the_largest_possible_sum_does_not_overflow(scheme, ring):
    protection = build_protection("smpc", smpc_scheme=scheme, ring=ring, clip=50.0)
    layout = Layout([Segment("up", 3), Segment("down", 3), Segment("n", 1, "count")])
    extreme = np.array([1e9, 50, 50, -1e9, -50, -50, 2.0**22])
    result = run_round(protection, dict.fromkeys(hospitals(7), extreme), layout=layout)
    assert result.opened.total.tolist() == [350] * 3 + [-350] * 3 + [7 * 2.0**22]
    assert result.protected["hospital-1"].clipped == pytest.approx(2 / 6)


def test_a_hundred_hospitals_add_exactly():
    values = {name: np.round(v * 1024) / 1024 for name, v in vectors(100).items()}
    for options in ({}, {"smpc_scheme": "shamir", "ring": 64}):
        result = run_round(build_protection("smpc", **options), values)
        assert result.opened.total.tolist() == result.plain.tolist()


def test_sympc_sums_are_reproduced_end_to_end():
    # five clients and their opened sum as measured from SyMPC, at its 16 fractional bits, truncating
    clients = np.outer([1, 2, 3, 4, 5], [0.1, -0.2, 0.0, -0.001]).astype(np.float32)
    clients[:, 2] = 1.25
    layout = Layout([Segment("w", 4)])
    protection = build_protection("smpc", ring=64, parties=2, precision=16, rounding="truncate")
    result = run_round(protection, dict(zip(hospitals(5), clients)), layout=layout)
    assert (result.opened.total * 65536).tolist() == [98302, -196606, 409600, -981]


def test_descriptions_and_fingerprints():
    plain, shamir = build_protection("smpc"), build_protection("smpc", smpc_scheme="shamir", parties=5)
    assert plain.fingerprint == build_protection("smpc").fingerprint != shamir.fingerprint
    assert plain.describe()["ring"] == 32 and shamir.describe()["smpc_scheme"] == "shamir"
    assert plain.aggregator_sees.endswith("only if all 3 parties collude")
    assert shamir.aggregator_sees.endswith("only if 3 of 5 parties collude")
    among = build_protection("smpc", parties="hospitals", smpc_scheme="shamir")
    assert "a majority of the hospitals" in among.aggregator_sees
    assert "all hospitals collude" in build_protection("smpc", parties="hospitals").aggregator_sees


def test_ring_capacity():
    # of 64 bits two are left: the authenticator tells integers apart modulo a prime of 63 bits
    assert (Ring(32).capacity, Ring(64).capacity) == (2**31 - 1, 2**61)
