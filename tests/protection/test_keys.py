import os

import pytest
from protection_helpers import hospitals

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import build_protection, keys

NAMES = hospitals(3)


@pytest.fixture
def agreed():
    ring, directory = keys.generate(NAMES, ["aggregator"])
    protection = build_protection("he", he_scheme="bfv")
    common = keys.CommonKeys(protection.new_key(3), ring.opener)
    sealed = keys.seal_keys(
        common, holder=NAMES[0], private=ring.hospitals[NAMES[0]], hospitals=directory.hospitals, run="r1"
    )
    return ring, directory, common, sealed


def opened(agreed, name, message, run="r1", holder=NAMES[0]):
    ring, directory, _, _ = agreed
    return keys.open_keys(
        message,
        name=name,
        private=ring.hospitals[name],
        holder=holder,
        hospitals=directory.hospitals,
        run=run,
    )


def test_every_hospital_gets_the_same_key(agreed):
    _, _, common, sealed = agreed
    for name in NAMES:
        got = opened(agreed, name, sealed[name])
        assert got.secret == common.secret
        assert keys.private_bytes(got.opener) == keys.private_bytes(common.opener)


def test_the_relay_sees_nothing_of_the_key(agreed):
    _, _, common, sealed = agreed
    everything = b"".join(sealed.values())
    for secret in (common.secret.data, keys.private_bytes(common.opener)):
        assert not any(secret[i : i + 16] in everything for i in range(0, len(secret) - 15, 16))


def test_keys_of_another_run_holder_or_hospital_are_refused(agreed):
    sealed = agreed[3]
    with pytest.raises(MessageError, match="in run 'r2'"):
        opened(agreed, NAMES[1], sealed[NAMES[1]], run="r2")
    with pytest.raises(MessageError, match="hospital-2"):
        opened(agreed, NAMES[1], sealed[NAMES[2]])
    with pytest.raises(MessageError, match="hospital-3's key"):
        opened(agreed, NAMES[1], sealed[NAMES[1]], holder=NAMES[2])
    altered = sealed[NAMES[1]][:-1] + bytes([sealed[NAMES[1]][-1] ^ 1])
    with pytest.raises(MessageError, match="altered"):
        opened(agreed, NAMES[1], altered)


def test_roles_work_from_agreed_keys_alone(agreed):
    from protection_helpers import run_round, vectors

    from skinfl.protection.base import Roles

    ring, directory, common, sealed = agreed
    protection = build_protection("he", he_scheme="bfv")
    sides = {
        name: protection.hospital(
            name, ring.hospitals[name], directory, opened(agreed, name, sealed[name]).secret
        )
        for name in NAMES
    }
    roles = Roles(
        sides,
        {"aggregator": protection.party(ring.parties["aggregator"], directory, common.secret.id)},
        protection.opener(common.opener, directory, common.secret),
    )
    result = run_round(protection, vectors(3), roles=roles)
    assert abs(result.opened.total - result.plain).max() < 1e-6


def test_every_setup_has_new_keys():
    protection = build_protection("smpc")
    first, second = protection.setup(NAMES), protection.setup(NAMES)
    from protection_helpers import LAYOUT, vectors

    from skinfl.protection.base import Exchange

    exchange = Exchange("run", 1, LAYOUT)
    message = first.hospitals[NAMES[0]].protect(vectors(1)[NAMES[0]], exchange).messages["party-1"]
    with pytest.raises(MessageError, match="other parameters or keys"):
        second.aggregators["party-1"].receive(message, exchange)


def test_a_directory_must_name_the_right_parties():
    ring, directory = keys.generate(NAMES, ["somebody"])
    for name in ("smpc", "he"):
        protection = build_protection(name)
        with pytest.raises(ProtectionError, match="directory must hold"):
            protection.hospital(NAMES[0], ring.hospitals[NAMES[0]], directory, protection.new_key(3))


@pytest.mark.parametrize("name", ["smpc", "he"])
def test_a_role_with_the_wrong_key_is_refused_at_once(name):
    protection = build_protection(name)
    parties = protection.party_names(NAMES) if name == "smpc" else ("aggregator",)
    ring, directory = keys.generate(NAMES, parties)
    secret = protection.new_key(3)
    extra = (secret,) if name == "he" else ()
    wrong = ring.hospitals[NAMES[1]]
    with pytest.raises(ProtectionError, match="private key of 'hospital-1' isn't the one"):
        protection.hospital(NAMES[0], wrong, directory, secret)
    with pytest.raises(ProtectionError, match="no key of 'hospital-9'"):
        protection.hospital("hospital-9", wrong, directory, secret)
    with pytest.raises(ProtectionError, match="private key of 'opener'"):
        protection.opener(wrong, directory, *extra)
    with pytest.raises(ProtectionError, match=f"private key of '{parties[0]}'"):
        if name == "smpc":
            protection.party(parties[0], wrong, directory)
        else:
            protection.party(wrong, directory, secret.id)


def test_key_files_are_for_their_owner_only(tmp_path):
    path = tmp_path / "hospital.key"
    keys.write_key_file(path, b"secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.read_key_file(path) == b"secret"
    with pytest.raises(ProtectionError, match="never overwritten"):
        keys.write_key_file(path, b"other")
    if os.name == "posix":
        path.chmod(0o640)
        with pytest.raises(ProtectionError, match=r"mode 640.*chmod 600"):
            keys.read_key_file(path)


def test_a_key_file_that_cannot_be_finished_leaves_nothing_that_blocks_the_next_try(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(ProtectionError, match=r"cannot write the key file .*k: No space left"):
            keys.write_key_file(tmp_path / "k", b"secret")
    assert os.listdir(str(tmp_path)) == []
    keys.write_key_file(tmp_path / "k", b"secret")
    assert keys.read_key_file(tmp_path / "k") == b"secret"


def test_missing_key_files_and_folders_are_named(tmp_path):
    with pytest.raises(ProtectionError, match=r"cannot read the key file .*none"):
        keys.read_key_file(tmp_path / "none")
    with pytest.raises(ProtectionError, match="cannot write the key file"):
        keys.write_key_file(tmp_path / "nowhere" / "k", b"")


def test_readable_fingerprints_differ_and_can_be_read_out():
    a, b = keys.readable(b"a" * 32), keys.readable(b"b" * 32)
    assert a != b
    assert [len(group) for group in a.split()] == [4] * 8
