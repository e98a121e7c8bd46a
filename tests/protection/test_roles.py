import numpy as np
import pytest
from comparison import built, protections
from protection_helpers import LAYOUT, combine, hospitals, needs_releases, run_round, vectors

from skinfl.errors import MessageError, ProtectionError, SettingsError
from skinfl.protection import build_protection, wire
from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.roles import OPENER
from skinfl.protection.sealing import Plain

EXCHANGE = Exchange("run", 1, LAYOUT)


@pytest.fixture(params=protections())
def protection(request):
    return built(request.param)


@pytest.fixture
def roles(protection):
    return protection.setup(hospitals(4))


def send(roles, name, exchange=EXCHANGE):
    vector = np.full(exchange.layout.size, 0.5, np.float32)
    return roles.hospitals[name].protect(vector, exchange)


def receive(roles, protected, exchange=EXCHANGE):
    for party, message in protected.messages.items():
        roles.aggregators[party].receive(message, exchange)


def assert_opens(protection, opened, value):
    """Check the sum of two vectors of 0.5."""
    assert np.abs(opened.total - value).max() <= protection.error_bound(2, 0.5)


def added(roles, senders, exchange):
    """Have the hospitals that are asked send, and the parties add; the senders are told in any order."""
    protected = {
        name: send(roles, name, exchange) for name in (senders if needs_releases(roles) else roles.hospitals)
    }
    for each in protected.values():
        receive(roles, each, exchange)
    return combine(roles, protected, senders, exchange)


def test_only_the_agreed_senders_are_added(protection, roles):
    exchange = EXCHANGE._replace(cohort=("hospital-3", "hospital-1"))
    opened = roles.opener.open(added(roles, exchange.cohort, exchange), exchange)
    assert opened.senders == ("hospital-1", "hospital-3")
    assert_opens(protection, opened, 1.0)


def test_a_replayed_message_is_refused(roles):
    protected = send(roles, "hospital-1")
    receive(roles, protected)
    for party, message in protected.messages.items():
        with pytest.raises(MessageError, match="'hospital-1' refused: it came before"):
            roles.aggregators[party].receive(message, EXCHANGE)


def test_messages_of_another_round_run_or_layout_are_refused(roles):
    other = Layout([Segment("conv", 151), *LAYOUT.segments[1:]])
    for exchange, reason in (
        (Exchange("run", 2, LAYOUT), "its round is 1, expected 2"),
        (Exchange("new", 1, LAYOUT), "its run is 'run'"),
        (Exchange("run", 1, other), "another model or strategy"),
    ):
        for party, message in send(roles, "hospital-1").messages.items():
            with pytest.raises(MessageError, match=reason):
                roles.aggregators[party].receive(message, exchange)


def test_a_round_is_added_up_once(roles):
    # two sums over different senders would give away the difference, a single update
    late = send(roles, "hospital-3")
    exchange = EXCHANGE._replace(cohort=("hospital-1", "hospital-2"))
    added(roles, exchange.cohort, exchange)
    for aggregator in roles.aggregators.values():
        with pytest.raises(ProtectionError, match="holds no messages of round 1"):
            aggregator.combine(exchange.cohort, exchange)
    for party, message in late.messages.items():
        with pytest.raises(MessageError, match="already added up"):
            roles.aggregators[party].receive(message, EXCHANGE)


def test_a_sender_that_sent_nothing_cannot_be_added(roles):
    receive(roles, send(roles, "hospital-1"))
    for aggregator in roles.aggregators.values():
        with pytest.raises(ProtectionError, match="no message of hospital-2"):
            aggregator.combine(["hospital-1", "hospital-2"], EXCHANGE)


def test_an_abandoned_round_is_forgotten(protection, roles):
    receive(roles, send(roles, "hospital-1"))
    following = Exchange("run", 2, LAYOUT, cohort=("hospital-2", "hospital-3"))
    protected = {name: send(roles, name, following) for name in following.cohort}
    for each in protected.values():
        receive(roles, each, following)
    for aggregator in roles.aggregators.values():
        with pytest.raises(ProtectionError, match="no message of hospital-1"):
            aggregator.combine(["hospital-1", "hospital-2"], following)
    combined = combine(roles, protected, following.cohort, following)
    assert_opens(protection, roles.opener.open(combined, following), 1.0)


def test_a_wrong_shape_is_refused_at_the_hospital(roles):
    with pytest.raises(ProtectionError, match="does not fit"):
        roles.hospitals["hospital-1"].protect(np.zeros(3), EXCHANGE)


def test_a_vector_that_is_not_finite_is_refused_at_the_hospital(roles):
    with pytest.raises(ProtectionError, match="not finite"):
        roles.hospitals["hospital-1"].protect(np.full(LAYOUT.size, np.nan), EXCHANGE)


@pytest.mark.parametrize("choice", protections(but=["plaintext"]))
def test_the_sum_of_one_hospital_is_never_made(choice):
    roles = built(choice).setup(hospitals(4))
    receive(roles, send(roles, "hospital-1"))
    for aggregator in roles.aggregators.values():
        with pytest.raises(ProtectionError, match="would show a single update"):
            aggregator.combine(["hospital-1"], EXCHANGE)


def test_too_few_or_repeated_hospitals_are_refused(protection):
    with pytest.raises(ProtectionError, match="or more hospitals are needed"):
        protection.setup([] if protection.name == "plaintext" else ["alone"])
    with pytest.raises(ProtectionError, match="distinct"):
        protection.setup(["a", "a"])


def combined_of(roles, senders=("hospital-1", "hospital-2")):
    for name in hospitals(4):
        receive(roles, send(roles, name))
    return {p: a.combine(senders, EXCHANGE) for p, a in roles.aggregators.items()}


def test_parties_that_summed_different_hospitals_are_refused():
    roles = build_protection("smpc").setup(hospitals(4))
    for name in hospitals(4):
        receive(roles, send(roles, name))
    combined = {
        party: side.combine(["hospital-1", "hospital-2"] if party == "party-1" else hospitals(3), EXCHANGE)
        for party, side in roles.aggregators.items()
    }
    with pytest.raises(ProtectionError, match=r"party-1 summed 2; party-2.party-3 summed 3"):
        roles.opener.open(combined, EXCHANGE)


def test_sums_are_taken_from_their_party_only():
    roles = build_protection("smpc").setup(hospitals(4))
    combined = combined_of(roles)
    swapped = {**combined, "party-1": combined["party-2"], "party-2": combined["party-1"]}
    with pytest.raises(MessageError, match="handed in as party-1's"):
        roles.opener.open(swapped, EXCHANGE)


def test_nothing_to_open():
    roles = build_protection("plaintext").setup(hospitals(2))
    with pytest.raises(ProtectionError, match="no party answered"):
        roles.opener.open({}, EXCHANGE)


def forged_sum(roles, senders, body=None):
    mark = roles.opener._session.fingerprint
    header = wire.Header(
        "plaintext", "sum", mark, "run", 1, "aggregator", OPENER, LAYOUT.digest, tuple(senders)
    )
    writer = Plain().writer(header)
    writer.write(np.zeros(LAYOUT.size) if body is None else body)
    return {"aggregator": writer.finish()}


@pytest.mark.parametrize(
    ("senders", "body", "reason"),
    [
        (["hospital-2", "hospital-1"], None, "list of senders"),
        (["hospital-1", "hospital-1"], None, "list of senders"),
        (["hospital-9"], None, "list of senders"),
        ([], None, "sum of 0 hospital"),
        (["hospital-1"], b"1234", "its sum has 4 bytes, 1600 expected"),
    ],
)
def test_malformed_sums_are_refused(senders, body, reason):
    roles = build_protection("plaintext").setup(hospitals(2))
    with pytest.raises(MessageError, match=reason):
        roles.opener.open(forged_sum(roles, senders, body), EXCHANGE)


def test_plaintext_adds_in_double_precision_rounds_once_and_keeps_the_vectors_type():
    single, double = vectors(3), {n: v.astype(np.float64) / 3 for n, v in vectors(3).items()}
    for values, width in ((single, 4), (double, 8)):
        result = run_round(build_protection("plaintext"), values)
        assert result.opened.total.tolist() == result.plain.astype(np.float32).tolist()
        length = len(result.protected["hospital-1"].messages["aggregator"])
        assert width * 200 < length < width * 200 + 400


def test_plaintext_refuses_a_body_of_another_length():
    roles = build_protection("plaintext").setup(hospitals(2))
    mark = roles.opener._session.fingerprint
    header = wire.Header("plaintext", "update", mark, "run", 1, "hospital-1", "aggregator", LAYOUT.digest)
    writer = Plain().writer(header)
    writer.write(bytes(12))
    with pytest.raises(MessageError, match="'hospital-1' refused: 12 bytes don't hold 200 values"):
        roles.aggregators["aggregator"].receive(writer.finish(), EXCHANGE)


def test_build_refuses_unknown_names_and_options():
    with pytest.raises(SettingsError, match="did you mean 'smpc'"):
        build_protection("smcp")
    with pytest.raises(SettingsError, match="no option 'thresold': did you mean 'threshold'"):
        build_protection("smpc", thresold=2)
    with pytest.raises(SettingsError, match="no option 'ring': it has none"):
        build_protection("plaintext", ring=32)
    assert build_protection("plaintext", ring=None).describe() == {"protection": "plaintext"}
