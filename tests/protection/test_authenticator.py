"""Sums are proved: by an oracle in Python's integers, and by tampering with every protection's sums.

A tampered sum passes with a probability of at most 2^-61 for each try: the form F is a polynomial of degree
two in numbers of 63 bits that nobody outside knows, so that F(e) = d holds for at most a share of 2 / 2^62
of them, unless e is zero (the whole argument heads the module). A test here that tampers and finds a sum
accepted has found a fault.
"""

import hashlib
import hmac

import msgpack
import numpy as np
import pytest
from comparison import assert_close, built, protections
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import LAYOUT, combine, hospitals, needs_releases, run_round, vectors

from skinfl.errors import ProtectionError, UnprovedSum
from skinfl.protection import build_protection
from skinfl.protection.authenticator import ROW, Authenticated, Authenticator
from skinfl.protection.base import Exchange
from skinfl.protection.encoder import BLOCK, FixedPointEncoder, Tally
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.trailer import LARGEST_WORD, PRIME, Trailer

EXCHANGE = Exchange("run", 1, LAYOUT)
ASKED = Exchange("run", 1, LAYOUT, task="t" * 32, base="b" * 32)
NOT_PROVED = "the sum of round 1 is not proved"


def is_prime(n):
    """Miller-Rabin with bases that are known to settle it below 2^64."""
    d, r = n - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(r - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def seed(secret, purpose, exchange, of):
    key = HKDF(SHA256(), 32, None, b"skinfl homomorphic authenticator 1").derive(secret)
    bound = [purpose, exchange.run, exchange.round, exchange.layout.digest, exchange.task, of]
    return hmac.new(key, msgpack.packb(bound, use_bin_type=True), hashlib.sha256).digest()


def numbers(key, count):
    """The little-endian words of AES-128 in counter mode."""
    stream = Cipher(algorithms.AES(key[:16]), modes.CTR(key[16:])).encryptor().update(bytes(8 * count))
    return [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(count)]


def oracle(secret, exchange, words):
    """F of words, straight from its definition."""
    size = len(words)
    a = [n % 2**63 for n in numbers(seed(secret, "coefficients", exchange, str(size)), min(ROW, size))]
    s = [n >> 1 for n in numbers(seed(secret, "rows", exchange, str(size)), size // ROW + 1)]
    total = 0
    for b in range(0, size, ROW):
        total += s[b // ROW] * sum(x * y for x, y in zip(a, words[b : b + ROW]))
    return total % PRIME


def in_pieces(array, cuts):
    return np.split(array, sorted(cut % (len(array) + 1) for cut in cuts))


def test_the_modulus_is_the_largest_prime_below_2_to_63():
    assert [n for n in range(PRIME, 2**63) if is_prime(n)] == [PRIME]


@pytest.mark.parametrize("size", [1, 5, ROW - 1, ROW, ROW + 1, 3 * ROW + 7, BLOCK + 2 * ROW + 1])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_form_agrees_with_python_integers(size, dtype):
    rng = np.random.default_rng(size)
    for low, high in ((-(2**27), 2**27), (np.iinfo(np.int32).min, np.iinfo(np.int32).max)):
        words = rng.integers(low, high, size, endpoint=True, dtype=np.int64).astype(dtype)
        form = Authenticator(b"secret").form(EXCHANGE, size)
        for piece in in_pieces(words, (size // 3, size // 3 + 1, size - 2)):
            form.add(piece)
        assert form.value() == oracle(b"secret", EXCHANGE, words.tolist())


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(-LARGEST_WORD, LARGEST_WORD), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=3),
)
def test_the_form_is_exact_for_wide_words(words, cuts):
    form = Authenticator(b"secret").form(ASKED, len(words))
    for piece in in_pieces(np.array(words, np.int64), cuts):
        form.add(piece)
    assert form.value() == oracle(b"secret", ASKED, words)


def test_the_form_is_exact_at_the_extremes():
    """Rows full of the largest words: nothing is rounded in float64."""
    edges = {
        np.int32: (2**31 - 1, -(2**31), -1, 0),
        np.int64: (2**61, -(2**61), 2**31, -(2**31) - 1, 2**32 - 1, 2**60 - 1, -(2**31), 0),
    }
    for dtype, values in edges.items():
        for value in values:
            words = np.full(2 * ROW + 3, value, dtype)
            form = Authenticator(b"s").form(EXCHANGE, len(words))
            form.add(words)
            assert form.value() == oracle(b"s", EXCHANGE, words.tolist())


def test_wide_and_narrow_blocks_in_turns():
    rng = np.random.default_rng(0)
    pieces = [rng.integers(-(2**high), 2**high, 5000) for high in (20, 60, 20, 60, 20, 20, 20, 60, 20) * 3]
    words = np.concatenate(pieces)
    form = Authenticator(b"s").form(EXCHANGE, len(words))
    for piece in pieces:
        form.add(piece)
    assert form.value() == oracle(b"s", EXCHANGE, words.tolist())


def test_masks_and_forms_belong_to_their_exchange_and_sender():
    one, other = Authenticator(b"one"), Authenticator(b"other")
    exchanges = [
        EXCHANGE,
        EXCHANGE._replace(run="run-2"),
        EXCHANGE._replace(round=2),
        EXCHANGE._replace(task="another"),
        EXCHANGE._replace(layout=Layout([Segment("w", 200)])),
    ]
    masks = {one.mask(e, name) for e in exchanges for name in ("a", "b")} | {other.mask(EXCHANGE, "a")}
    assert len(masks) == 11
    values = set()
    for exchange in exchanges:
        form = one.form(exchange, 2)
        form.add(np.array([3, 4]))
        values.add(form.value())
    assert len(values) == 5
    # protected again for a smaller cohort, a contribution is the same
    again = EXCHANGE._replace(attempt=3, cohort=("a", "b"))
    assert one.mask(again, "a") == one.mask(EXCHANGE, "a")


@pytest.mark.parametrize("base", [2, 255, 65535, 2**28, 2**60, 2**63])
def test_tags_are_summed_without_carrying(base):
    trailer = Trailer(base)
    tags = [0, PRIME - 1, PRIME - 1, 12345678901234567]
    digits = [trailer.encode_tag(tag) for tag in tags]
    assert all(0 <= d.min() and int(d.max()) < base for d in digits)
    total = np.sum([d.astype(object) for d in digits], axis=0)  # the schemes leave room for so many
    assert trailer.tag(np.concatenate([np.zeros(trailer.width - len(total), object), total])) == (
        sum(tags) % PRIME
    )
    shares = np.concatenate([trailer.encode_share(0.25) + trailer.encode_share(0.5), digits[0]])
    assert trailer.share(shares, 2) == 0.75
    assert len(shares) == trailer.width and trailer.tagged(len(shares)) == len(shares) - len(digits[0])


def test_blocks_may_be_overwritten_by_whoever_shares_them():
    """The tag is of the integers as they were encoded, whatever the caller makes of the arrays."""
    layout = Layout([Segment("w", BLOCK + 100)])
    encoder = FixedPointEncoder(hospitals=2, capacity=2**31 - 1, clip=64, precision=16, rounding="nearest")
    encoder.dtype = np.dtype(np.int32)
    exchange = Exchange("run", 1, layout)
    authenticator = Authenticator(b"secret")
    parts = []
    for block in Authenticated(encoder, authenticator, "h").blocks(
        np.random.default_rng(1).normal(0, 1, layout.size), exchange, Tally()
    ):
        parts.append(block.copy())
        block[:] = 77
    words = np.concatenate(parts).astype(np.int64)
    authenticator.check(words, ["h"], exchange, encoder.trailer)


# Every protection


PROTECTED = protections(but=["plaintext"])


class Summed:
    """A protection's opened sum over three of four hospitals."""

    def __init__(self, choice, exchange=ASKED):
        self.protection = built(choice)
        self.roles = self.protection.setup(hospitals(4))
        self.values = vectors(4)
        self.senders = ("hospital-1", "hospital-2", "hospital-4")
        # where ciphertexts are masked, exactly those that are added can protect
        self.exchange = exchange._replace(cohort=self.senders)
        asked = self.senders if needs_releases(self.roles) else hospitals(4)
        self.protected = {}
        for name in asked:
            self.protected[name] = self.roles.hospitals[name].protect(self.values[name], self.exchange)
            for party, message in self.protected[name].messages.items():
                self.roles.aggregators[party].receive(message, self.exchange_of_parties)
        self.combined = combine(self.roles, self.protected, self.senders, self.exchange_of_parties)
        self.opened = self.roles.opener.open(self.combined, self.exchange)
        self.hospital = self.roles.hospitals["hospital-3"]

    @property
    def exchange_of_parties(self):
        return self.exchange._replace(task="", base="")  # which were not asked, and have no secret

    def refused(self, words, senders=None, exchange=None, match=NOT_PROVED):
        with pytest.raises(ProtectionError, match=match) as caught:
            self.hospital.verify(words, senders or self.senders, exchange or self.exchange)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module", params=PROTECTED)
def summed(request):
    return Summed(request.param)


def test_an_honest_sum_is_proved_at_every_hospital(summed):
    plain = np.sum([summed.values[name].astype(np.float64) for name in summed.senders], axis=0)
    for side in summed.roles.hospitals.values():
        found = side.verify(summed.opened.words, summed.senders, summed.exchange)
        assert found.total.tolist() == summed.opened.total.tolist()
        assert (found.senders, found.clipped) == (summed.senders, summed.opened.clipped)
        assert (found.ranges is None) == (summed.opened.ranges is None)
        assert_close(summed.protection, found.total, plain, list(summed.values.values()))


def test_every_altered_word_is_found(summed):
    words = summed.opened.words
    rng = np.random.default_rng(0)
    for at in {*rng.integers(0, len(words), 20).tolist(), *range(len(words) - 12, len(words))}:
        for change in (1, -1, 100):
            altered = words.copy()
            altered[at] += change
            summed.refused(altered)
    for at, other in rng.integers(0, len(words) // 2, (5, 2)):
        if words[at] != words[other]:
            swapped = words.copy()
            swapped[[at, other]] = words[[other, at]]
            summed.refused(swapped)


def test_other_senders_than_were_added_are_found(summed):
    for senders in (
        ("hospital-1", "hospital-2"),
        ("hospital-1", "hospital-2", "hospital-3"),
        tuple(hospitals(4)),
    ):
        summed.refused(summed.opened.words, senders)
    for senders in (
        ("hospital-1", "hospital-1", "hospital-2"),
        ("hospital-2", "hospital-1", "hospital-4"),
        ("hospital-1", "hospital-2", "hospital-9"),
    ):
        summed.refused(summed.opened.words, senders, match="not distinct hospitals of this run in order")
    summed.refused(summed.opened.words, ("hospital-1",), match="would show a single update")


def test_a_sum_of_another_exchange_is_found(summed):
    other = Layout([Segment("conv", 149), Segment("more", 1), *LAYOUT.segments[1:]])
    for changes in ({"run": "run-2"}, {"task": "u" * 32}, {"task": ""}):
        summed.refused(summed.opened.words, exchange=summed.exchange._replace(**changes))
    summed.refused(summed.opened.words, exchange=summed.exchange._replace(round=2), match="round 2 is not")
    if summed.opened.ranges is None:  # a range for each segment makes it longer
        summed.refused(summed.opened.words, exchange=summed.exchange._replace(layout=other))


def test_a_sum_under_another_secret_is_found(summed):
    stranger = summed.protection.setup(hospitals(4)).hospitals["hospital-1"]
    with pytest.raises(ProtectionError, match=NOT_PROVED):
        stranger.verify(summed.opened.words, summed.senders, summed.exchange)


def test_what_is_no_sum_is_refused_in_a_line(summed):
    words = summed.opened.words
    for wrong in (
        words[:-1],
        np.append(words, words[-1:]),
        words.reshape(1, -1),
        words.astype(np.float64),
        words.astype(np.uint64),
        words[:0],
        words.astype(object),
    ):
        summed.refused(wrong, match=r"the sum of round 1 has shape .* expected \d+ signed integers")
    for dtype in (np.int64, ">i8"):
        assert summed.hospital.verify(words.astype(dtype), summed.senders, summed.exchange).senders
    summed.refused(np.full(len(words), np.iinfo(np.int64).min))
    altered = words.astype(np.int64)
    altered[3] += PRIME if altered[3] < 0 else -PRIME  # the same modulo the prime
    summed.refused(altered)


def test_a_sum_of_doubled_contributions_is_found(summed):
    """Words and tags of one hospital, added twice to another's and called the sum of both."""
    pair = ("hospital-1", "hospital-2")
    doubled = 2 * summed.opened.words.astype(np.int64)
    summed.refused(doubled, match=f"{NOT_PROVED}|no 3 updates")
    summed.refused(doubled, pair, match=f"{NOT_PROVED}|no 2 updates")


@pytest.mark.parametrize("choice", PROTECTED)
def test_clipped_shares_travel_with_the_sum(choice):
    protection = built(choice)
    roles, values = protection.setup(hospitals(3)), vectors(3)
    for i in range(5):
        values["hospital-2"][i] = 1e4
    result = run_round(protection, values, roles=roles)
    shares = [result.protected[name].clipped for name in values]
    assert shares[1] > 0 == shares[0]
    assert result.opened.clipped == pytest.approx(sum(shares), abs=3 * 2.0**-27)
    checked = roles.hospitals["hospital-1"].verify(result.opened.words, result.opened.senders, EXCHANGE)
    assert checked.clipped == result.opened.clipped


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_sums_are_proved_whatever_ranges_a_hospital_was_told(bits):
    """One that comes late has none yet, one that is asked again has those of the next round already."""
    protection = build_protection("he", he_scheme="bfv", bits=bits)
    roles = protection.setup(hospitals(3))
    ready, late = roles.hospitals["hospital-1"], roles.hospitals["hospital-3"]
    old, rounds = late.state(), []
    for number in (1, 2, 3):
        opened = run_round(protection, vectors(3), roles=roles, number=number).opened
        for side in roles.hospitals.values():
            side.set_ranges(opened.ranges)
        rounds.append(opened)
    late.load_state(old)  # which knows of no ranges
    for number, opened in enumerate(rounds, 1):
        for side in (ready, late):
            found = side.verify(opened.words, opened.senders, Exchange("run", number, LAYOUT))
            assert found.total.tolist() == opened.total.tolist()
            assert found.ranges.tolist() == opened.ranges.tolist()


@pytest.mark.parametrize("choice", PROTECTED)
def test_a_value_beyond_what_the_senders_may_send_is_refused(choice):
    """A hospital that has the secret can tag anything, but a sum beyond all clip ranges is refused."""
    roles = built(choice).setup(hospitals(2))
    side = roles.hospitals["hospital-1"]
    encoder, trailer = side._encoder, side._encoder.trailer
    words = np.zeros(encoder.size(LAYOUT), np.int64)
    words[0] = 2 * (getattr(encoder.inner, "clip", None) or 64) * 2**22 + 1000
    tagged = trailer.tagged(len(words))
    form = side._authenticator.form(EXCHANGE, tagged)
    form.add(words[:tagged])
    masks = sum(side._authenticator.mask(EXCHANGE, name) for name in hospitals(2))
    words[tagged:] = trailer.encode_tag((form.value() + masks) % PRIME)
    with pytest.raises(ProtectionError, match="no 2 updates within their clip range"):
        side.verify(words, hospitals(2), EXCHANGE)


# Ways to get a wrong sum out of parties that follow no protocol


def opened_by(roles, protected):
    return roles.opener.open(combine(roles, protected, hospitals(3), EXCHANGE), EXCHANGE)


def share_all(roles, values):
    protected = {name: roles.hospitals[name].protect(vector, EXCHANGE) for name, vector in values.items()}
    for each in protected.values():
        for party, message in each.messages.items():
            roles.aggregators[party].receive(message, EXCHANGE)
    return protected


def test_mixed_sharings_of_one_vector_are_found():
    """One party keeps what a hospital sent first, the others what it sent when it was asked again."""
    roles = build_protection("smpc").setup(hospitals(3))
    values = vectors(3)
    protected = share_all(roles, values)
    before = roles.aggregators["party-1"]._kept["hospital-2"]
    again = roles.hospitals["hospital-2"].protect(values["hospital-2"], EXCHANGE).messages
    for party, side in roles.aggregators.items():
        del side._kept["hospital-2"]
        side.receive(again[party], EXCHANGE)
    roles.aggregators["party-1"]._kept["hospital-2"] = before
    assert_refused_somewhere(roles, protected)


def assert_refused_somewhere(roles, protected):
    """By the opener, where the values are beyond all bounds, or else by a hospital."""
    with pytest.raises(ProtectionError, match=f"{NOT_PROVED}|within their clip range"):
        opened = opened_by(roles, protected)
        roles.hospitals["hospital-1"].verify(opened.words, opened.senders, EXCHANGE)


@pytest.mark.parametrize("at", [0, 160, -1])
def test_exactly_t_tampered_shamir_answers_are_found(at):
    """No spare answer shows that something is wrong: a party adds a multiple of its own to one word."""
    roles = build_protection("smpc", smpc_scheme="shamir", parties=2, threshold=2).setup(hospitals(3))
    protected = share_all(roles, vectors(3))
    for number, party in enumerate(roles.aggregators.values(), 1):
        honest, field = party.add, party._field

        def lie(contents, exchange, writer, honest=honest, field=field, number=number):
            class Tamper:
                def __init__(self):
                    self.words = []

                def write(self, data):
                    self.words.append(np.array(data))

            taken = Tamper()
            honest(contents, exchange, taken)
            words = np.concatenate(taken.words).astype(np.uint64)
            # values of f(x) = 1000 + x: the secret grows by 1000
            words[at] = field.add(words[at : at + 1 or None], np.uint64(1000 + number))[0]
            writer.write(words.astype(field.unsigned))

        party.add = lie
    opened = opened_by(roles, protected)  # the opener has no key and notices nothing
    with pytest.raises(ProtectionError, match=NOT_PROVED):
        roles.hospitals["hospital-1"].verify(opened.words, opened.senders, EXCHANGE)


def test_an_additive_party_that_drops_or_doubles_a_share_is_found():
    for change in (lambda contents: contents[1:], lambda contents: [*contents, contents[0]]):
        roles = build_protection("smpc").setup(hospitals(3))
        protected = share_all(roles, vectors(3))
        for party in roles.aggregators.values():
            honest = party.add
            party.add = lambda contents, exchange, writer, honest=honest, change=change: honest(
                change(contents), exchange, writer
            )
        # all parties do the same, so that the values are those of a possible sum
        assert_refused_somewhere(roles, protected)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("options", [{}, {"he_scheme": "ckks-vector"}, {"he_scheme": "bfv"}])
def test_an_encrypted_sum_is_opened_only_if_it_is_proved(options, masked, monkeypatch):
    """Masks that do not cancel make it noise, besides; the tag finds it without."""
    from skinfl.protection.he.masks import Mask

    if not masked:
        monkeypatch.setattr(Mask, "draw", lambda self: np.zeros_like(self._block[0]))

    def tampered(change):
        roles = build_protection("he", **options).setup(hospitals(3))
        protected = share_all(roles, vectors(3))
        party = roles.aggregators["aggregator"]
        honest = party.add
        party.add = lambda contents, exchange, writer: honest(change(contents), exchange, writer)
        return roles, protected

    assert opened_by(*tampered(lambda contents: contents)).senders == tuple(hospitals(3))
    for change in (
        lambda contents: contents[1:],
        lambda contents: [*contents[:2], contents[0]],
        lambda contents: [[*c[1:], c[0]] if len(c) > 1 else [*contents[0]] for c in contents],
    ):
        with pytest.raises(UnprovedSum, match=NOT_PROVED):
            opened_by(*tampered(change))


def test_headers_show_tasks_only_keyed():
    from skinfl.protection import wire

    for choice in ("smpc", "he"):
        sides = [build_protection(choice).setup(hospitals(2)).hospitals["hospital-1"] for _ in range(2)]
        seen = set()
        for side in sides:
            for message in side.protect(vectors(1)["hospital-1"], ASKED).messages.values():
                header = wire.parse(message).header
                assert ASKED.task not in (header.task, header.base) and len(header.task) == 32
                seen.add((header.task, header.base))
        assert len(seen) == 2  # one for each secret


def test_a_secret_of_another_length_is_refused():
    from skinfl.protection import keys

    protection = build_protection("smpc")
    ring, directory = keys.generate(hospitals(2), protection.party_names(hospitals(2)))
    secret = keys.SecretKey(b"id", b"short")
    with pytest.raises(ProtectionError, match="secret has 5 bytes, expected 32"):
        protection.hospital("hospital-1", ring.hospitals["hospital-1"], directory, secret)
