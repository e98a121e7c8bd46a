"""Masks: whoever has the common key opens sums of whole cohorts, and nothing smaller."""

import hashlib

import numpy as np
import pytest
from protection_helpers import LAYOUT, combine, hospitals, run_round, vectors

from skinfl.errors import ProtectionError, UnprovedSum
from skinfl.protection import build_protection, keys
from skinfl.protection.base import Exchange
from skinfl.protection.encoder import Tally
from skinfl.protection.he import masks, seal
from skinfl.protection.he.masks import Mask, PairSeeds, UniformResidues
from skinfl.protection.he.residues import Ring, residues
from skinfl.protection.prg import Stream, new_scratch
from skinfl.protection.roles import Session

SCHEMES = {
    "ckks-layers": {},
    "ckks-vector": {"he_scheme": "ckks-vector"},
    "bfv-8": {"he_scheme": "bfv", "bits": 8},
    "bfv-12": {"he_scheme": "bfv", "bits": 12},
    "bfv-16": {"he_scheme": "bfv", "bits": 16},
}
EXCHANGE = Exchange("run", 1, LAYOUT, task="task", base="base")
AGGREGATOR = "aggregator"
VALUES = LAYOUT.segments[0].size  # at the start of the first ciphertext, whatever the scheme


def blind(exchange):
    """The exchange as an aggregator knows it, which was not asked itself."""
    return exchange._replace(task="", base="")


@pytest.fixture(params=SCHEMES)
def protection(request):
    options = SCHEMES[request.param]
    if "bits" in options:
        options = {**options, "clip": 1.0, "rounding": "nearest"}
    return build_protection("he", **options)


def test_every_scheme_has_a_case_with_one_prime_and_bfv_one_with_two():
    numbers = {
        len(Ring.of(build_protection("he", **options)._build(n)[1].context).primes)
        for options in SCHEMES.values()
        for n in (2, 3, 10)
    }
    assert numbers == {1, 2}


@pytest.mark.parametrize("number", [2, 3, 10])
def test_masks_leave_no_trace_in_the_sum(protection, number, monkeypatch):
    """Bit for bit what the same integers give without any mask."""
    values = vectors(number)
    masked = run_round(protection, values).opened.total
    monkeypatch.setattr(Mask, "draw", lambda self: np.zeros_like(self._block[0]))
    assert masked.tolist() == run_round(protection, values).opened.total.tolist()


class Coalition:
    """An aggregator that also has the hospitals' common key."""

    def __init__(self, protection, number=3):
        self.names = hospitals(number)
        ring, directory = keys.generate(self.names, (AGGREGATOR,))
        secret = protection.new_key(number)
        self.hospitals = {
            name: protection.hospital(name, ring.hospitals[name], directory, secret) for name in self.names
        }
        self.aggregators = {AGGREGATOR: protection.party(ring.parties[AGGREGATOR], directory, secret.id)}
        self.opener = protection.opener(ring.opener, directory, secret)
        self.aggregator = self.aggregators[AGGREGATOR]
        self.packing = self.aggregator._packing
        self.ring = Ring.of(self.packing.context)
        self._decryptor = seal.sealapi.Decryptor(
            self.packing.context, seal.load(seal.sealapi.SecretKey(), self.packing.context, secret.data)
        )
        self._evaluator = seal.sealapi.Evaluator(self.packing.context)

    def send(self, exchange=EXCHANGE, cohort=None):
        """Protect at the hospitals of a cohort, hand over the messages and return what they made."""
        exchange = exchange._replace(cohort=tuple(cohort or ()))
        values = vectors(len(self.names))
        made = {}
        for name in cohort or self.names:
            made[name] = self.hospitals[name].protect(values[name], exchange)
            self.aggregator.receive(made[name].messages[AGGREGATOR], blind(exchange))
        return made

    def combined(self, made, exchange=EXCHANGE):
        """The aggregator's sum over everyone."""
        return combine(self, made, self.names, blind(exchange))

    def ciphertexts(self):
        """The first ciphertext of every hospital, as the aggregator has it."""
        return {name: kept[0] for name, kept in self.aggregator._kept.items()}

    def added(self, ciphertexts, releases=()):
        """The sum of ciphertexts without the masks of these releases, as serialised."""
        total = ciphertexts[0]
        for each in ciphertexts[1:]:
            fresh = seal.sealapi.Ciphertext()
            self._evaluator.add(total, each, fresh)
            total = fresh
        codec = self.packing.codec()
        piece = codec.encode(total, Mask(self.ring, (), releases).draw())
        return codec.decode(memoryview(piece), seeded=False)

    def slots(self, ciphertext):
        """The integers that a ciphertext decrypts to."""
        plaintext = seal.sealapi.Plaintext()
        self._decryptor.decrypt(ciphertext, plaintext)
        return self.packing.decode(plaintext, self.packing.sizes(LAYOUT, "")[0])

    def reads(self, ciphertext, names):
        """Whether a ciphertext decrypts to the sum of what these hospitals encrypted.

        Values and trailer alike, bit for bit; otherwise its values must have nothing in common with theirs.
        """
        values = vectors(len(self.names))
        expected = np.zeros(self.packing.sizes(LAYOUT, "")[0])
        for name in names:
            blocks = self.hospitals[name]._encoder.blocks(values[name], EXCHANGE, Tally())
            integers = np.concatenate([block.copy() for block in blocks])
            expected += integers[: len(expected)]
        found = self.slots(ciphertext).astype(np.float64)
        if np.array_equal(found, expected):
            return True
        correlation = np.corrcoef(found[:VALUES], expected[:VALUES])[0, 1]
        assert abs(correlation) < 0.5, "not the sum, and yet not noise"
        return False


def test_the_common_key_opens_the_sum_of_all_and_nothing_smaller(protection):
    coalition = Coalition(protection)
    releases = {name: made.release for name, made in coalition.send().items()}
    found = coalition.ciphertexts()
    everyone = list(releases.values())
    assert coalition.reads(coalition.added(list(found.values()), everyone), coalition.names)
    for name in coalition.names:
        assert not coalition.reads(found[name], [name])
        assert not coalition.reads(coalition.added([found[name]], [releases[name]]), [name])
        others = [n for n in coalition.names if n != name]
        pair = [found[n] for n in others]
        assert not coalition.reads(coalition.added(pair), others)
        assert not coalition.reads(coalition.added(pair, [releases[n] for n in others]), others)
    assert not coalition.reads(coalition.added(list(found.values())), coalition.names)


def test_an_attempt_that_lacks_one_release_stays_unreadable(protection):
    """The aggregator has all of the first attempt, says that one is missing, and opens the second."""
    coalition = Coalition(protection)
    first = coalition.send()
    kept = coalition.ciphertexts()
    rest = coalition.names[:2]
    second = coalition.send(EXCHANGE._replace(attempt=1), rest)
    again = coalition.ciphertexts()
    releases = {name: made.release for name, made in second.items()}
    assert coalition.reads(coalition.added([again[n] for n in rest], list(releases.values())), rest)

    known = [first[name].release for name in rest]  # even if two hospitals broke the rule
    assert not coalition.reads(coalition.added(list(kept.values()), known), coalition.names)
    mixed = [again[rest[0]], kept[rest[1]], kept[coalition.names[2]]]
    assert not coalition.reads(coalition.added(mixed, [releases[rest[0]]]), coalition.names)
    assert all(first[name].release != second[name].release for name in rest)


def test_a_message_is_uniform_to_whoever_has_the_key():
    """The first polynomial of one hospital's zeros, with all that the others know taken off."""
    layout = LAYOUT
    coalition = Coalition(build_protection("he", he_scheme="ckks-vector"))
    side = coalition.hospitals["hospital-1"]
    made = side.protect(np.zeros(layout.size), EXCHANGE)
    coalition.aggregator.receive(made.messages[AGGREGATOR], blind(EXCHANGE))
    (ciphertext,) = coalition.aggregator._kept["hospital-1"]
    bare = coalition.added([ciphertext], [made.release])
    prime = int(coalition.ring.primes[0, 0])
    plaintext = seal.sealapi.Plaintext()
    coalition._decryptor.decrypt(bare, plaintext)
    phase = np.array([plaintext[i] for i in range(coalition.ring.degree)], np.float64) / prime
    counts = np.histogram(phase, 16, (0, 1))[0]
    expected = len(phase) / 16
    assert ((counts - expected) ** 2 / expected).sum() < 15 + 7 * np.sqrt(30)


@pytest.mark.parametrize(
    "change",
    [{"task": "other"}, {"base": "other"}, {"attempt": 1}, {"cohort": ("hospital-1", "hospital-2")}],
    ids=lambda change: next(iter(change)),
)
def test_masks_of_another_exchange_do_not_cancel(protection, change):
    coalition, found, releases = Coalition(protection), [], []
    for name in coalition.names:
        asked = EXCHANGE._replace(**change) if name == "hospital-2" else EXCHANGE
        made = coalition.hospitals[name].protect(vectors(3)[name], asked)
        coalition.aggregator._current = None  # it takes what honest code refuses
        coalition.aggregator.receive(made.messages[AGGREGATOR], blind(asked))
        found.append(coalition.ciphertexts()[name])
        releases.append(made.release)
    assert not coalition.reads(coalition.added(found, releases), coalition.names)


def test_the_aggregator_needs_the_cohort_and_its_releases():
    coalition = Coalition(build_protection("he"))
    made = coalition.send()
    side, names, asked = coalition.aggregator, coalition.names, blind(EXCHANGE)
    releases = {name: protected.release for name, protected in made.items()}
    assert side.releases
    with pytest.raises(ProtectionError, match=r"masks of 2 hospital.* hospital-3 is missing: ask the hosp"):
        side.combine(names[:2], asked, releases)
    with pytest.raises(ProtectionError, match="others were to be added"):
        side.combine(names, asked._replace(cohort=tuple(names[:2])), releases)
    for lacking in ({}, None, {**releases, "hospital-2": b"short"}):
        with pytest.raises(ProtectionError, match=r"hospital-[12] has not released its mask"):
            side.combine(names, asked, lacking)
    opened = coalition.opener.open(coalition.combined(made), EXCHANGE)  # nothing was lost
    assert opened.senders == tuple(names)


def test_a_wrong_release_gives_noise_which_the_opener_refuses(protection):
    coalition = Coalition(protection)
    made = coalition.send()
    found = list(coalition.ciphertexts().values())
    releases = [each.release for each in made.values()]
    assert coalition.reads(coalition.added(found, releases), coalition.names)
    for wrong in (bytes(32), made["hospital-1"].release):
        releases[1] = wrong
        assert not coalition.reads(coalition.added(found, releases), coalition.names)
    made["hospital-2"] = made["hospital-2"]._replace(release=bytes(32))
    with pytest.raises(UnprovedSum, match="sum of round 1 is not proved"):
        coalition.opener.open(coalition.combined(made), EXCHANGE)


@pytest.mark.parametrize(
    ("cohort", "reason"),
    [
        (("hospital-1",), "a sum of 1 hospital"),
        (("hospital-2", "hospital-3"), "hospital-1 is not among the hospitals to be added"),
        (("hospital-1", "hospital-1"), "each named once"),
        (("hospital-1", "hospital-9"), "must be of this run"),
    ],
)
def test_a_hospital_refuses_an_impossible_cohort(cohort, reason):
    side = build_protection("he").setup(hospitals(3)).hospitals["hospital-1"]
    with pytest.raises(ProtectionError, match=reason):
        side.protect(np.zeros(LAYOUT.size), EXCHANGE._replace(cohort=cohort))


def test_the_order_in_which_a_cohort_is_named_does_not_matter():
    coalition = Coalition(build_protection("he"))
    made = {}
    for turn, name in enumerate(coalition.names):
        cohort = tuple(coalition.names[turn:] + coalition.names[:turn])
        made[name] = coalition.hospitals[name].protect(vectors(3)[name], EXCHANGE._replace(cohort=cohort))
        coalition.aggregator.receive(made[name].messages[AGGREGATOR], blind(EXCHANGE))
    opened = coalition.opener.open(coalition.combined(made), EXCHANGE)
    assert np.abs(opened.total - np.sum(list(vectors(3).values()), axis=0)).max() < 1e-5


def test_seeds_are_the_same_at_both_ends_and_bound_to_everything():
    ring, directory = keys.generate(["a", "b", "c"], (AGGREGATOR,))
    pairs = {name: PairSeeds(name, key, directory.hospitals) for name, key in ring.hospitals.items()}
    session = Session("he", "mark", ("a", "b", "c"), 2)

    def seeds(exchange=EXCHANGE, session=session):
        (ab, ac), none = pairs["a"].seeds(exchange, session)
        (bc,), (ba,) = pairs["b"].seeds(exchange, session)
        assert none == [] and ab == ba
        assert pairs["c"].seeds(exchange, session) == ([], [ac, bc])
        return {ab, ac, bc}

    found = [seeds(), seeds(session=session._replace(fingerprint="other"))]
    for field in ("run", "task", "base"):
        found.append(seeds(EXCHANGE._replace(**{field: "other"})))
    for field in ("round", "attempt"):
        found.append(seeds(EXCHANGE._replace(**{field: 7})))
    assert len(set.union(*found)) == 3 * len(found)
    pair = EXCHANGE._replace(cohort=("b", "a"))
    assert pairs["a"].seeds(pair, session) == (pairs["b"].seeds(pair, session)[1], [])
    assert not set(pairs["a"].seeds(pair, session)[0]) & set.union(*found)


def test_a_key_that_gives_no_secret_is_refused():
    ring, directory = keys.generate(["a", "b"], (AGGREGATOR,))
    with pytest.raises(ProtectionError, match="not a valid X25519 key"):
        PairSeeds("a", ring.hospitals["a"], {**directory.hospitals, "b": bytes(32)})


@pytest.mark.parametrize("primes", [(5, 7), (11, 2**33 + 1)])
def test_residues_are_drawn_one_by_one_as_in_blocks_and_rejected_alike(primes):
    """Against a loop over single words; small primes make rejection frequent."""
    ring = Ring(np.array(primes, np.uint64)[:, None], 64)
    width = 4 if max(primes) < 2**32 else 8
    seed = b"s" * 32
    words = iter(Stream(seed).words(3 * 2 * 64, np.dtype(f"<u{width}")).tolist())
    spare = Stream(hashlib.sha256(b"skinfl rejected draws" + seed).digest())
    expected, rejected = [], 0
    for _ in range(3):
        for prime in primes:
            low = (1 << prime.bit_length()) - 1
            for _ in range(64):
                word = next(words) & low
                while word >= prime:
                    word, rejected = int(spare.words(1, np.dtype(f"<u{width}"))[0]) & low, rejected + 1
                expected.append(word)
    assert rejected > 20
    scratch = new_scratch(), new_scratch()
    once = UniformResidues(seed, ring, scratch).draw(3).reshape(-1).tolist()
    stream = UniformResidues(seed, ring, scratch)
    assert once == [n for _ in range(3) for n in stream.draw(1).reshape(-1).tolist()] == expected


@pytest.mark.parametrize("prime", [2**60 - 2**18 + 1, 2**32 - 2**17 + 1])
def test_many_streams_never_overflow(prime):
    """Sums of hundreds of residues of the widest primes, against Python's integers."""
    ring = Ring(np.array([[prime]], np.uint64), 16)
    added, subtracted = (
        [hashlib.sha256(f"{side}{i}".encode()).digest() for i in range(200)] for side in "+-"
    )
    scratch = new_scratch(), new_scratch()

    def total(seeds):
        return sum(UniformResidues(seed, ring, scratch).draw(1).astype(object) for seed in seeds)[0]

    found = Mask(ring, added, subtracted).draw()
    assert int(found.max()) <= 2**64 - prime
    assert (found.astype(object) % prime).tolist() == ((total(added) - total(subtracted)) % prime).tolist()


def test_ciphertexts_travel_unchanged_in_their_primes_bytes(protection):
    packing = protection._build(3)[1]
    codec, ring = packing.codec(), Ring.of(packing.context)
    generator = seal.sealapi.KeyGenerator(packing.context)
    plaintext = seal.sealapi.Plaintext()
    packing.encode(np.arange(5), plaintext)
    seeded = seal.sealapi.Encryptor(packing.context, generator.secret_key()).encrypt_symmetric(plaintext)
    nothing = np.zeros((len(ring.primes), ring.degree), np.uint64)
    whole = codec.decode(memoryview(codec.encode(seeded, nothing)), seeded=True)
    piece = codec.encode(whole, nothing)
    assert len(piece) == codec.size(seeded=False)
    again = codec.decode(memoryview(piece), seeded=False)
    assert residues(again).tolist() == residues(whole).tolist()
    assert (again.is_ntt_form(), again.scale) == (packing.ntt_form, packing.scale)
    seal.sealapi.Decryptor(packing.context, generator.secret_key()).decrypt(again, plaintext)
    assert packing.decode(plaintext, 5).tolist() == list(range(5))

    mask = nothing + ring.primes - np.uint64(1)
    minus = codec.decode(memoryview(codec.encode(whole, mask)), seeded=False)
    expected = (residues(whole).astype(object)[0] - 1) % ring.primes.astype(object)
    assert residues(minus)[0].tolist() == expected.tolist()
    assert residues(minus)[1].tolist() == residues(whole)[1].tolist()


def test_a_ciphertext_of_another_form_is_not_sent():
    packing = build_protection("he", he_scheme="bfv")._build(3)[1]
    generator = seal.sealapi.KeyGenerator(packing.context)
    plaintext = seal.sealapi.Plaintext()
    packing.encode(np.arange(5), plaintext)
    encryptor = seal.sealapi.Encryptor(packing.context, generator.secret_key())
    ciphertext = seal.load(
        seal.sealapi.Ciphertext(), packing.context, seal.dump(encryptor.encrypt_symmetric(plaintext))
    )
    seal.sealapi.Evaluator(packing.context).transform_to_ntt_inplace(ciphertext)
    with pytest.raises(ProtectionError, match="serialises otherwise"):
        packing.codec().encode(ciphertext, np.zeros((1, packing.parameters.degree), np.uint64))


def test_the_argument_is_written_down():
    for name in ("Bonawitz", "Bell", "Drop-outs", "Trust model"):
        assert name in masks.__doc__
