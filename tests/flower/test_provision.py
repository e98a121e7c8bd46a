import ipaddress
import os
import ssl
import stat
import subprocess
import sys

import pytest
import typer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)
from typer.testing import CliRunner

from skinfl.errors import ProtectionError, SettingsError, WriteError
from skinfl.flower.provisioning import commands
from skinfl.flower.provisioning.folders import read_coordinator, read_hospital
from skinfl.flower.provisioning.provision import check_hospitals, parse_server, provision


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("provision") / "fed"
    provision(["a", "b-2", "c"], "fl.example.org:8443", out, minimum_others=2)
    return out


def test_every_secret_is_for_its_owner_only_and_every_file_has_an_owner(made):
    secrets = {"authority/ca.key", "coordinator/server.key"}
    secrets |= {f"{h}/{key}" for h in ("a", "b-2", "c") for key in ("node.key", "sealing.key")}
    for path in made.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif str(path.relative_to(made)) in secrets:
            assert mode == 0o600, path
        else:
            assert mode in (0o644, 0o755), path
            assert b"PRIVATE KEY" not in path.read_bytes(), path
    assert all((made / name).is_file() for name in secrets)


def test_certificate_names_the_server_and_is_signed_by_the_authority(made):
    ca = x509.load_pem_x509_certificate((made / "a" / "ca.pem").read_bytes())
    server = x509.load_pem_x509_certificate((made / "coordinator" / "server.pem").read_bytes())
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    assert ipaddress.ip_address("127.0.0.1") in names.get_values_for_type(x509.IPAddress)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made / "coordinator" / "server.pem", made / "coordinator" / "server.key")


def test_a_hospital_reads_back_its_folder_and_its_keys_fit_the_published_ones(made):
    everyone = {name: read_hospital(made / name) for name in ("a", "b-2", "c")}
    coordinator = read_coordinator(made / "coordinator")
    assert coordinator.hospitals == ("a", "b-2", "c")
    assert coordinator.port == 8443
    for name, folder in everyone.items():
        assert (folder.name, folder.coordinator, folder.minimum_others) == (name, "fl.example.org:8443", 2)
        assert folder.sealing_keys == everyone["a"].sealing_keys
        private = x25519.X25519PrivateKey.from_private_bytes(folder.sealing_key())
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert folder.sealing_keys[name] == public
        node = load_ssh_private_key(folder.node_key.read_bytes(), None)
        assert isinstance(node.curve, ec.SECP384R1)
        registered = load_ssh_public_key(coordinator.public_key(name).read_bytes())
        assert node.public_key().public_numbers() == registered.public_numbers()
        assert folder.approved() == ()
    assert len(set(everyone["a"].sealing_keys.values())) == 3


def test_scripts_are_valid_shell(made):
    scripts = list(made.rglob("*.sh"))
    assert len(scripts) == 7
    for script in scripts:
        subprocess.run(["sh", "-n", str(script)], check=True)


def test_an_existing_folder_is_left_alone(made, tmp_path):
    before = (made / "a" / "node.key").read_bytes()
    with pytest.raises(SettingsError, match="never overwritten"):
        provision(["a", "b"], "localhost", made)
    assert (made / "a" / "node.key").read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="exists"):
        provision(["a", "b"], "localhost", tmp_path / "link")


def test_nothing_is_left_behind_where_writing_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteError, match="No space left"):
        provision(["a", "b"], "localhost", tmp_path / "fed")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        provision(["a", "b"], "localhost", tmp_path / "file" / "fed")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "../b"], "'../b'"),
        (["a", "B"], "'B'"),
        (["a", ""], "''"),
        (["a", "-b"], "'-b'"),
        (["a", "b" * 33], "32"),
        (["a", "b c"], "'b c'"),
        (["a", "coordinator"], "taken"),
        (["a", "b", "a"], "'a' is named twice"),
        (["a"], "at least 2"),
    ],
)
def test_bad_hospital_names_are_refused(names, reason):
    with pytest.raises(SettingsError, match=reason):
        check_hospitals(names)


def test_hospital_names_are_stripped():
    assert check_hospitals([" a", "b "]) == ["a", "b"]


@pytest.mark.parametrize(
    ("server", "parsed"),
    [
        ("fl.example.org", ("fl.example.org", 8000)),
        ("10.0.0.1:443", ("10.0.0.1", 443)),
        ("::1", ("::1", 8000)),
        ("[2001:db8::1]:9000", ("2001:db8::1", 9000)),
    ],
)
def test_servers(server, parsed):
    assert parse_server(server) == parsed


@pytest.mark.parametrize("server", ["", "https://x", "a b", "x:99999", "300.1.1.1", "-x.org", "x..org", "x:"])
def test_bad_servers_are_refused(server):
    with pytest.raises(SettingsError, match="server"):
        parse_server(server)


def test_impossible_limits_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="between 1 and 1"):
        provision(["a", "b"], "localhost", tmp_path / "x", minimum_others=2)
    with pytest.raises(SettingsError, match="maximum-parameters"):
        provision(["a", "b"], "localhost", tmp_path / "x", maximum_parameters=0)
    assert not (tmp_path / "x").exists()


@pytest.fixture
def folder(tmp_path):
    provision(["a", "b"], "localhost", tmp_path / "fed")
    return tmp_path / "fed" / "a"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("minimum_others = 1", "minimum_others = 0", "at least 1"),
        ("minimum_others = 1", "minimum_others = true", "expected int"),
        ("minimum_others = 1", "minimum_other = 1", "did you mean 'minimum_others'"),
        ("port = 9094", "", "'port' is missing"),
        ('name = "a"', 'name = "z"', "lacks 'z'"),
        ('a = "', 'a = "zz', "64 hexadecimal"),
        ("[sealing_keys]", "[sealing_keys", "not valid TOML"),
    ],
)
def test_a_spoilt_hospital_file_is_refused(folder, old, new, reason):
    path = folder / "hospital.toml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=reason):
        read_hospital(folder)


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(SettingsError, match="skinfl provision"):
        read_hospital(tmp_path)
    with pytest.raises(SettingsError, match=r"coordinator\.toml"):
        read_coordinator(tmp_path)
    hospital = read_hospital(folder)
    (folder / "sealing.key").unlink()
    with pytest.raises(ProtectionError, match=r"sealing\.key"):
        hospital.sealing_key()
    hospital.approved_code.unlink()
    with pytest.raises(SettingsError, match=r"approved-code\.txt"):
        hospital.approved()


def test_a_secret_that_others_can_read_is_refused(folder):
    (folder / "sealing.key").chmod(0o640)
    with pytest.raises(ProtectionError, match="chmod 600"):
        read_hospital(folder).sealing_key()


def test_approved_code_ignores_remarks_and_case(folder):
    hospital = read_hospital(folder)
    hospital.approved_code.write_text("# all\n\nAB12 # read by us\ncd34\n")
    assert hospital.approved() == ("ab12", "cd34")


def test_the_command_line_makes_the_folders(tmp_path):
    app = typer.Typer()
    commands.register(app)
    app.callback()(lambda: None)  # keeps 'provision' a sub-command
    arguments = ["provision", "--hospitals", "a,b", "--server", "localhost", "--out", str(tmp_path / "fed")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "fed").iterdir()) == ["a", "authority", "b", "coordinator"]
    assert "over a channel you trust" in result.output


def test_provisioning_does_not_import_flower():
    code = "import sys, skinfl.flower.provisioning.commands; sys.exit(any(m == 'flwr' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
