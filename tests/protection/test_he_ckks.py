import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protection_helpers import LAYOUT, hospitals, run_round, vectors

from skinfl.errors import ProtectionError, SettingsError
from skinfl.protection import build_protection
from skinfl.protection.base import Exchange
from skinfl.protection.he import ckks, seal
from skinfl.protection.he.standard import MODULUS_BITS, check_security
from skinfl.protection.layout import Layout, Segment


def test_the_standards_table_is_obeyed():
    check_security(8192, [60, 40, 60])
    check_security(4096, [109])
    with pytest.raises(
        ProtectionError, match=r"degree 1024 with a modulus of 160 bits.*at most 27.*degree 8192"
    ):
        check_security(1024, [40, 40, 40, 40])
    with pytest.raises(ProtectionError, match=r"less than 128-bit security.*degree 4096"):
        check_security(2048, [55])
    with pytest.raises(ProtectionError, match="use a shorter modulus"):
        check_security(32768, [60] * 15)
    with pytest.raises(ProtectionError, match="degree 5000: choose one of"):
        check_security(5000, [20])


@pytest.mark.parametrize("degree", [1024, 2048, 4096, 8192])
def test_seal_agrees_with_the_table(degree):
    # SEAL has its own copy of the standard and refuses what is weaker
    most = MODULUS_BITS[degree]
    chain = [most] if most <= 60 else [most // 4] * 3 + [most - 3 * (most // 4)]
    seal.ckks_context(degree, chain)
    parameters = seal.sealapi.EncryptionParameters(seal.sealapi.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(degree)
    chain[0] += 1
    parameters.set_coeff_modulus(seal.sealapi.CoeffModulus.Create(degree, chain))
    context = seal.sealapi.SEALContext(parameters, True, seal.sealapi.SEC_LEVEL_TYPE.TC128)
    assert not context.parameters_set()


def test_parameters_that_seal_refuses_are_an_error():
    with pytest.raises(ProtectionError, match="SEAL refuses"):
        seal.bfv_context(2048, [40], seal.primes(2048, [40])[0])  # the plain modulus may not be a prime of q


def test_bytes_go_in_and_out_without_memory_files(monkeypatch, tmp_path):
    monkeypatch.delattr(seal.os, "memfd_create")
    monkeypatch.setattr(seal.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(seal, "_FILE", seal._MemoryFile())
    monkeypatch.setattr(seal.atexit, "register", lambda *_: None)
    result = run_round(build_protection("he"), vectors(2))
    assert np.abs(result.opened.total - result.plain).max() < 1e-6
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_size == 0  # nothing stays behind
    seal._remove(str(file), os.getpid() + 1)  # a child that ends leaves it alone
    assert file.exists()
    seal._remove(str(file), os.getpid())
    assert not file.exists()


def test_loading_rubbish_is_an_error():
    context = seal.ckks_context(2048, [40])
    for content in (b"", b"rubbish", bytes(5000)):
        with pytest.raises(ValueError):
            seal.load(seal.sealapi.Ciphertext(), context, content)


@pytest.mark.parametrize("scheme", ["ckks-layers", "ckks-vector"])
@pytest.mark.parametrize("degree", [None, 4096])
def test_ckks_sum_is_exact_on_the_grid(scheme, degree):
    values = vectors(5)
    result = run_round(build_protection("he", he_scheme=scheme, degree=degree, precision=20), values)
    expected = np.sum([np.rint(v.astype(np.float64) * 2**20) for v in values.values()], axis=0) / 2**20
    assert result.opened.total[:157].tolist() == expected[:157].tolist()
    assert result.opened.total[159:].tolist() == expected[159:].tolist()
    assert np.abs(result.opened.total - result.plain)[157:159].max() <= 5 * 2.0**-28


def test_layers_have_ciphertexts_of_their_own():
    layout = Layout([Segment("a", 3), Segment("b", 2049), Segment("n", 2, "count"), Segment("c", 10)])
    integers, packing = build_protection("he")._build(2)
    last = 2 * integers.counts.width + integers.trailer.width
    assert packing.sizes(layout, "") == [3, 2048, 1, 10, last]
    _, whole = build_protection("he", he_scheme="ckks-vector")._build(2)
    assert whole.sizes(layout, "") == [2048, 14 + last]


@pytest.mark.parametrize("hospitals", [2, 5, 30, 100])
@pytest.mark.parametrize("degree", [2048, 4096, 8192])
def test_the_worst_sum_stays_below_half_a_step(hospitals, degree):
    """All hospitals at the largest word: the measured error is far below the stated bound."""
    prime_bits = min(60, MODULUS_BITS[degree])
    parameters = ckks.capacity_of(degree, prime_bits, hospitals)
    assert ckks.noise_bound(degree, hospitals, 2.0 ** (prime_bits - 1)) < 2.0 ** (parameters.scale_bits - 1)
    integers = np.array([parameters.capacity // hospitals] * 3 + [-(parameters.capacity // hospitals), 0])
    packing = ckks.CkksPacking(parameters, None, False)
    generator = seal.sealapi.KeyGenerator(packing.context)
    encryptor = seal.sealapi.Encryptor(packing.context, generator.secret_key())
    decryptor = seal.sealapi.Decryptor(packing.context, generator.secret_key())
    evaluator = seal.sealapi.Evaluator(packing.context)
    plaintext, total = seal.sealapi.Plaintext(), None
    full = np.resize(integers, degree)
    for _ in range(hospitals):
        packing.encode(full, plaintext)
        ciphertext = seal.load(
            seal.sealapi.Ciphertext(), packing.context, seal.dump(encryptor.encrypt_symmetric(plaintext))
        )
        if total is None:
            total = ciphertext
        else:
            evaluator.add_inplace(total, ciphertext)
    decryptor.decrypt(total, plaintext)
    assert packing.decode(plaintext, degree).tolist() == (hospitals * full).tolist()


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 50), st.floats(0.1, 500))
def test_chosen_parameters_carry_the_sum(hospitals, clip):
    try:
        parameters, precision = ckks.choose_parameters(
            hospitals=hospitals, clip=clip, precision=None, degree=None
        )
    except ProtectionError as error:
        assert "lower the clip" in str(error)
        return
    assert parameters.capacity >= hospitals * np.ceil(clip * 2.0**precision)
    check_security(parameters.degree, [parameters.prime_bits])


def test_what_does_not_fit_is_refused_at_setup():
    with pytest.raises(ProtectionError, match=r"precision 30 could overflow CKKS.*at most"):
        build_protection("he", precision=30).setup(hospitals(5))
    with pytest.raises(ProtectionError, match="CKKS at degree 1024"):
        build_protection("he", degree=1024).setup(hospitals(5))
    with pytest.raises(ProtectionError, match="no room for 100 hospitals and clip"):
        build_protection("he", clip=1e9).setup(hospitals(100))


def test_a_hundred_hospitals_add_exactly():
    values = {name: np.round(v * 1024) / 1024 for name, v in vectors(100).items()}
    result = run_round(build_protection("he", he_scheme="ckks-vector"), values)
    assert result.opened.total.tolist() == result.plain.tolist()


def test_uploads_are_seeded():
    protection = build_protection("he", he_scheme="ckks-vector")
    layout = Layout([Segment("w", 2048 * 8 - protection._build(2)[0].trailer.width)])  # eight ciphertexts
    result = run_round(protection, vectors(2, layout), layout=layout)
    up = len(result.protected["hospital-1"].messages["aggregator"])
    assert 6 < up / layout.size < 7.7
    assert 1.9 < len(result.combined["aggregator"]) / up < 2.1  # a sum can't be seeded


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"he_scheme": "ckks"}, "unknown he_scheme 'ckks'"),
        ({"bits": 16}, "need he_scheme bfv"),
        ({"rounding_seed": 1}, "need he_scheme bfv"),
        ({"rounding": "stochastic"}, "valid: nearest, truncate"),
        ({"he_scheme": "bfv", "precision": 20}, "precision belongs to ckks"),
        ({"he_scheme": "bfv", "bits": 10}, "bits = 10: choose one of 8, 12, 16"),
        ({"he_scheme": "bfv", "rounding": "truncate"}, "valid: nearest, stochastic"),
        ({"he_scheme": "bfv", "clip": -1}, "positive number"),
    ],
)
def test_impossible_options_are_refused(options, reason):
    with pytest.raises(SettingsError, match=reason):
        build_protection("he", **options)


def test_malformed_ciphertexts_of_an_authentic_sender_are_refused():
    """A hospital that seals rubbish is named; nothing of it is kept."""
    from skinfl.errors import MessageError
    from skinfl.protection.roles import begin_update

    roles = build_protection("he").setup(hospitals(2))
    exchange = Exchange("run", 1, LAYOUT)
    side, aggregator = roles.hospitals["hospital-1"], roles.aggregators["aggregator"]
    pieces = len(side._packing.sizes(LAYOUT, ""))
    piece = bytes(side._codec.size(seeded=True))
    for body, reason in (
        (b"rubbish", f"7 bytes don't hold {pieces} ciphertexts of {len(piece)}"),
        (piece * (pieces - 1), f"don't hold {pieces} ciphertexts"),
        (piece * (pieces + 1), f"don't hold {pieces} ciphertexts"),
        (b"\xff" * len(piece) * pieces, "ciphertext 1 is invalid"),  # no residues of the prime
        (piece * pieces, "ciphertext 1 is invalid"),  # the seed names no generator
    ):
        writer = begin_update(side._session, side._link, "hospital-1", "aggregator", exchange)
        writer.write(body)
        with pytest.raises(MessageError, match=f"'hospital-1' refused: .*{reason}"):
            aggregator.receive(writer.finish(), exchange)
    message = side.protect(np.zeros(LAYOUT.size), exchange).messages["aggregator"]
    assert aggregator.receive(message, exchange) == "hospital-1"


def test_a_key_of_other_parameters_is_refused():
    five, many = build_protection("he"), build_protection("he", degree=4096)
    from skinfl.protection import keys

    ring, directory = keys.generate(hospitals(2), ["aggregator"])
    with pytest.raises(ProtectionError, match="doesn't fit these parameters"):
        five.opener(ring.opener, directory, many.new_key(2))


def test_descriptions_and_fingerprints():
    he = build_protection("he")
    assert he.fingerprint == build_protection("he").fingerprint
    assert he.fingerprint != build_protection("he", precision=20).fingerprint
    assert he.describe()["he_scheme"] == "ckks-layers"
    assert "colludes with a hospital" in he.aggregator_sees
    assert he.setup(hospitals(2)).opener.place == "hospitals"


def test_progress_is_told():
    side = build_protection("he").setup(hospitals(2)).hospitals["hospital-1"]
    seen = []
    side.progress = lambda done, total: seen.append((done, total))
    side.protect(np.zeros(LAYOUT.size), Exchange("r", 1, LAYOUT))
    assert seen[-1][0] == seen[-1][1] and len(seen) == 4
