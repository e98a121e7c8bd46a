"""What a party can make of all that it received and holds: nothing about a single update."""

import gc

import numpy as np
import pytest
from protection_helpers import LAYOUT, hospitals, run_round, vectors

from skinfl.protection import build_protection, keys
from skinfl.protection.base import Exchange, Roles
from skinfl.protection.he import seal
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.prg import Stream
from skinfl.protection.smpc.additive import AdditiveParty
from skinfl.protection.smpc.field import Field, UniformElements

SIZE = 60_000
WIDE = Layout([Segment("w", SIZE)])


def chi_square(values, cells):
    """The statistic for uniformity over ``cells``; mean cells - 1, standard deviation sqrt(2 (cells - 1))."""
    counts = np.bincount(values, minlength=cells)
    expected = len(values) / cells
    return float(((counts - expected) ** 2 / expected).sum())


def assert_uniform(integers):
    """Every byte position of little-endian integers, by a test that a fair source fails once in 10^9 runs."""
    for column in np.ascontiguousarray(integers).view(np.uint8).reshape(len(integers), -1).T:
        assert chi_square(column, 256) < 255 + 7 * np.sqrt(2 * 255)


def shares_of(protection, vector):
    """The bodies that each party reads out of one hospital's messages."""
    names = hospitals(2)
    roles = protection.setup(names)
    exchange = Exchange("run", 1, WIDE)
    messages = roles.hospitals["hospital-1"].protect(vector, exchange).messages
    for party, message in messages.items():
        roles.aggregators[party].receive(message, exchange)
    return {party: side._kept["hospital-1"] for party, side in roles.aggregators.items()}


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.37])
def test_additive_shares_are_uniform_in_every_byte(ring, value):
    protection = build_protection("smpc", ring=ring)
    shares = shares_of(protection, np.full(SIZE, value, np.float32))
    dtype = protection.arithmetic.unsigned
    expanded = []
    for share in shares.values():
        if isinstance(share, bytes):
            share = np.concatenate([Stream(share).words(SIZE, dtype)])
        share = share[:SIZE]  # the trailer's left off
        assert_uniform(share)
        expanded.append(share.copy())
    # nor do two of the three shares add up to anything but uniform integers
    assert_uniform(expanded[0] + expanded[1])
    assert_uniform(expanded[1] + expanded[2])
    total = (expanded[0] + expanded[1] + expanded[2]).view(protection.arithmetic.signed)
    assert set(total.tolist()) == {int(np.rint(value * 2**22))}


@pytest.mark.parametrize("ring", [32, 64])
def test_shamir_shares_are_uniform_over_the_field(ring):
    protection = build_protection("smpc", smpc_scheme="shamir", ring=ring, parties=4, threshold=3)
    shares = shares_of(protection, np.full(SIZE, 0.25, np.float32))
    field = Field(ring)
    for share in shares.values():
        if isinstance(share, bytes):
            share = UniformElements(share, field).draw(SIZE)
        share = share.astype(np.uint64)
        assert int(share.max()) < field.prime
        for shift in range(0, field.exponent - 7, 8):
            column = ((share >> np.uint64(shift)) & np.uint64(255)).astype(np.int64)
            assert chi_square(column, 256) < 255 + 7 * np.sqrt(2 * 255)


def test_what_travels_is_uniform_too():
    roles = build_protection("smpc").setup(hospitals(2))
    messages = (
        roles.hospitals["hospital-1"].protect(np.zeros(SIZE, np.float32), Exchange("r", 1, WIDE)).messages
    )
    longest = max(messages.values(), key=len)
    assert_uniform(np.frombuffer(longest[-4 * SIZE :], "<u4"))


def reachable(thing):
    """All objects that can be reached from ``thing``, but for modules and classes."""
    seen, queue = {}, [thing]
    while queue:
        current = queue.pop()
        if id(current) in seen or isinstance(current, type) or type(current).__name__ == "module":
            continue
        seen[id(current)] = current
        if hasattr(current, "__globals__"):
            continue
        queue.extend(gc.get_referents(current))
    return list(seen.values())


@pytest.mark.parametrize("options", [{}, {"he_scheme": "bfv"}])
def test_the_aggregator_holds_no_key_and_cannot_decrypt(options):
    protection = build_protection("he", **options)
    names = hospitals(3)
    ring, directory = keys.generate(names, ("aggregator",))
    secret = protection.new_key(3)
    aggregator = protection.party(ring.parties["aggregator"], directory, secret.id)
    side = protection.hospital(names[0], ring.hospitals[names[0]], directory, secret)
    exchange = Exchange("run", 1, LAYOUT)
    vector = vectors(1)[names[0]]
    aggregator.receive(side.protect(vector, exchange).messages["aggregator"], exchange)

    held = reachable(aggregator)
    kinds = {type(thing).__name__ for thing in held}
    assert "SEALContext" in kinds and "Ciphertext" in kinds  # the walk does see what it holds
    assert not kinds & {"SecretKey", "KeyGenerator", "Decryptor", "Encryptor", "PublicKey", "RelinKeys"}
    raw = [bytes(thing) for thing in held if isinstance(thing, (bytes, bytearray))]
    assert not any(
        secret.data[i : i + 24] in blob for blob in raw for i in range(40, len(secret.data) - 24, 24)
    )

    # the best it can do is to try a key of its own
    packing = aggregator._packing
    guess = seal.sealapi.KeyGenerator(packing.context).secret_key()
    decryptor, plaintext = seal.sealapi.Decryptor(packing.context, guess), seal.sealapi.Plaintext()
    ciphertexts, integers = aggregator._kept[names[0]], []
    for ciphertext, count in zip(ciphertexts, packing.sizes(LAYOUT, "")):
        decryptor.decrypt(ciphertext, plaintext)
        integers.append(packing.decode(plaintext, count))
    try:
        got = packing.vector(np.concatenate(integers), LAYOUT, 1, "").vector
    except Exception:
        return  # not even numbers of the right form
    assert np.abs(np.corrcoef(got[:150], vector[:150])[0, 1]) < 0.5
    assert np.abs(got - vector).max() > 1


def test_no_party_can_open_what_was_sealed_to_another():
    roles = build_protection("smpc").setup(hospitals(2))
    exchange = Exchange("run", 1, LAYOUT)
    messages = roles.hospitals["hospital-1"].protect(np.zeros(LAYOUT.size), exchange).messages
    from skinfl.errors import MessageError
    from skinfl.protection import wire

    envelope = wire.parse(messages["party-1"])
    for name in ("party-2", "party-3"):
        with pytest.raises(MessageError, match="sealed with another key"):
            roles.aggregators[name]._links["hospital-1"].open(envelope)


def test_all_but_one_party_and_the_relay_learn_nothing_from_equal_bytes():
    """Two very different updates give views of the same distribution to any two of three parties."""
    for value in (0.0, 50.0):
        shares = shares_of(build_protection("smpc"), np.full(SIZE, value, np.float32))
        pair = [
            share[:SIZE]
            if isinstance(share, np.ndarray)
            else Stream(share).words(SIZE, np.dtype("<u4")).copy()
            for share in list(shares.values())[:2]
        ]
        assert_uniform(pair[0] - pair[1])


def test_each_role_works_from_its_own_keys_alone():
    protection = build_protection("smpc", parties="hospitals", smpc_scheme="shamir")
    names = hospitals(3)
    ring, directory = keys.generate(names, names)
    secret = protection.new_key(3)
    roles = Roles(
        {n: protection.hospital(n, ring.hospitals[n], directory, secret) for n in names},
        {n: protection.party(n, ring.parties[n], directory) for n in names},
        protection.opener(ring.opener, directory),
    )
    result = run_round(protection, vectors(3), roles=roles)
    assert np.abs(result.opened.total - result.plain).max() < 2e-6
    assert not isinstance(roles.aggregators["hospital-1"], AdditiveParty)
