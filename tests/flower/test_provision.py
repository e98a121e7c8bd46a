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
from skinfl.flower.provisioning.defaults import Limits
from skinfl.flower.provisioning.folders import read_coordinator, read_hospital
from skinfl.flower.provisioning.provision import check_hospitals, parse_server, provision
from skinfl.settings import Settings


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
        ('protections = ["smpc"', "protections = [1", "a list of names"),
        ("port = 9094", 'port = 9094\ndevice = "gpu"', "hospital.toml: device = 'gpu'"),
        ("port = 9094", "port = 9094\ndevice = 1", "expected str"),
        ("port = 9094", 'port = 9094\namp = "bf61"', "amp = 'bf61': did you mean 'bf16'"),
        ("port = 9094", "port = 9094\nthreads = 0", "at least 1"),
        ("own_figures = false", "own_figures = 0", "own_figures = 0: expected bool"),
        ("reproducible = false", 'reproducible = "no"', "expected bool"),
        ("reproducible = false", "reproducibel = true", "did you mean 'reproducible'"),
        ("batch_size = [8, 4096]", "batch_size = [64, 8]", "batch_size = .*in order"),
        ("batch_size = [8, 4096]", "batch_size = [8.0, 64]", "two whole numbers"),
        ("batch_size = [8, 4096]", "batch_size = 8", r"expected \[low, high\]"),
        ("batch_size = [8, 4096]", "batchsize = [8, 4096]", "did you mean 'batch_size'"),
        ("lr = [1e-05, 1.0]", "lr = [0, 1.0]", "above 0"),
        ("lr = [1e-05, 1.0]", "lr = [1e-5, inf]", "above 0 in order"),
        ("lr = [1e-05, 1.0]", "lr = [nan, 1.0]", "above 0 in order"),
        ("lr = [1e-05, 1.0]", "lr = [true, 1.0]", "two numbers"),
        ("message_bytes = 1073741824", "message_bytes = 0", "at least 1"),
        ("[limits]", "[limits.lr]", "two numbers"),
    ],
)
def test_a_spoilt_hospital_file_is_refused(folder, old, new, reason):
    path = folder / "hospital.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=reason) as caught:
        read_hospital(folder)
    assert "\n" not in str(caught.value) or "TOML" in reason


def test_a_file_without_the_newer_settings_has_their_safe_defaults(folder):
    path = folder / "hospital.toml"
    before, _, rest = path.read_text().partition("# whether this hospital's own loss")
    path.write_text(before + "[sealing_keys]" + rest.partition("[sealing_keys]")[2])
    found = read_hospital(folder)
    assert (found.own_figures, found.reproducible, found.limits) == (False, False, Limits())
    path.write_text(path.read_text().replace("[sealing_keys]", "[limits]\nlr = [0.01, 1]\n[sealing_keys]"))
    assert read_hospital(folder).limits == Limits(lr=(0.01, 1))


def test_a_hospital_says_what_it_computes_on(folder):
    path = folder / "hospital.toml"
    found = read_hospital(folder)
    assert (found.device, found.amp, found.deterministic, found.oom_smaller) == ("auto", "auto", True, False)
    own = 'device = "cuda:1"\namp = "off"\ndeterministic = false\noom_smaller = true\nthreads = 3\n'
    path.write_text(own + path.read_text())
    found = read_hospital(folder)
    assert (found.device, found.amp, found.deterministic) == ("cuda:1", "off", False)
    assert found.oom_smaller and found.threads == 3


def test_what_is_provisioned_is_written_and_read_back(tmp_path):
    limits = Limits(batch_size=(2, 64), lr=(1e-7, 20.0), message_bytes=4096)
    out = tmp_path / "fed"
    provision(["a", "b", "c"], "localhost", out, own_figures=True, reproducible=True, limits=limits)
    found = read_hospital(out / "a")
    assert (found.own_figures, found.reproducible, found.limits) == (True, True, limits)
    assert found.minimum_others == 2


def test_two_hospitals_are_told_why_a_sum_of_two_must_do(folder, made):
    assert read_hospital(folder).minimum_others == 1
    assert "# 1, there are only two: who is alone with" in (folder / "hospital.toml").read_text()
    assert "can subtract its own update" not in (made / "a" / "hospital.toml").read_text()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch_size": 4}, "a takes part with batch_size from 8 to 4096, this run has 4"),
        ({"local_epochs": 51}, "local_epochs from 1 to 50, this run has 51"),
        ({"lr": 1.5}, r"lr from 1e-05 to 1\.0, this run has 1\.5"),
        ({"fine_tune_epochs": 51}, "fine_tune_epochs of at most 50, this run has 51"),
        ({"lr": 2e-5, "warmup_rounds": 3}, r"reaches 6\.66667e-06 in round 1: raise lr"),
        (
            {"lr_schedule": "cosine", "rounds": 100, "lr_min_share": 0.0},
            "in round 100: raise lr or lr_min_share",
        ),
        ({"protection": "smpc", "smpc_scheme": "shamir", "threshold": 2}, "above half of the 4 parties"),
    ],
)
def test_settings_beyond_a_hospitals_limits_are_refused(folder, changes, reason):
    hospital = read_hospital(folder)
    hospital.check_settings(Settings(parties=4), 4)
    hospital.check_settings(Settings(protection="smpc", smpc_scheme="shamir", parties=4, threshold=3), 4)
    hospital.check_settings(Settings(protection="smpc", smpc_scheme="shamir", parties=4), 4)
    with pytest.raises(ProtectionError, match=reason):
        hospital.check_settings(Settings(**{"parties": 4, **changes}), 4)


@pytest.mark.parametrize("weight", [0.019, 50.1, -1.0, float("nan"), float("inf")])
def test_class_weights_beyond_a_hospitals_limits_are_refused(folder, weight):
    hospital = read_hospital(folder)
    hospital.check_class_weights([0.0, 0.02, 50.0])
    with pytest.raises(ProtectionError, match=r"class_weights from 0\.02 to 50\.0, or 0, this run has"):
        hospital.check_class_weights([1.0, weight])
    with pytest.raises(ProtectionError, match="0 for every class"):
        hospital.check_class_weights([0.0, 0.0])


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
    arguments += ["--own-figures", "--reproducible"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "fed").iterdir()) == ["a", "authority", "b", "coordinator"]
    assert "over a channel you trust" in result.output
    found = read_hospital(tmp_path / "fed" / "b")
    assert (found.minimum_others, found.own_figures, found.reproducible) == (1, True, True)


def test_provisioning_does_not_import_flower():
    code = "import sys, skinfl.flower.provisioning.commands; sys.exit(any(m == 'flwr' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
