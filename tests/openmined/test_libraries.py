"""Sharing by SyMPC and by PySyft 0.2.9: the last encoded bit agrees with the package's own."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from skinfl.errors import MessageError, ProtectionError, SettingsError
from skinfl.protection import wire
from skinfl.protection.base import Exchange
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.smpc.protection import Smpc

LAYOUT = Layout([Segment("w", 500), Segment("n", 3, "count"), Segment("b", 7)])
EXCHANGE = Exchange("run", 4, LAYOUT)
HOSPITALS = ("a", "b", "c")


def has_pysyft():
    try:
        return version("syft") == "0.2.9"
    except PackageNotFoundError:
        return False


INSTALLED = []
if importlib.util.find_spec("sympc") is not None:
    from skinfl.openmined.sympc_sharing import Sympc

    INSTALLED.append(Sympc)
if has_pysyft():
    from skinfl.openmined.pysyft_sharing import PySyftSharing

    INSTALLED.append(PySyftSharing)
if not INSTALLED:
    pytest.skip(
        "neither SyMPC (environment-sympc.yml) nor PySyft 0.2.9 (environment.yml) is installed",
        allow_module_level=True,
    )


@pytest.fixture(params=INSTALLED, ids=lambda kind: kind.name)
def protection(request):
    return request.param


def vectors(dtype=np.float32):
    rng = np.random.default_rng(7)
    made = {name: rng.normal(size=LAYOUT.size).astype(dtype) for name in HOSPITALS}
    made["a"][3] = 1e6  # beyond the clip range
    made["b"][500] = 123456.789  # a count, never clipped
    return made


def protect(roles, sent):
    return {name: roles.hospitals[name].protect(vector, EXCHANGE) for name, vector in sent.items()}


def combine(roles, protected, senders=HOSPITALS):
    for name, made in protected.items():
        for party, message in made.messages.items():
            assert roles.aggregators[party].receive(message, EXCHANGE) == name
    return {party: side.combine(senders, EXCHANGE) for party, side in roles.aggregators.items()}


def total(protection, sent):
    roles = protection.setup(HOSPITALS)
    opened = roles.opener.open(combine(roles, protect(roles, sent)), EXCHANGE)
    assert opened.senders == HOSPITALS
    return opened.total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parties", [2, 3, "hospitals"])
def test_the_sum_is_the_packages_own_to_the_last_bit(protection, parties, dtype):
    own = Smpc(ring=64, precision=16, rounding="truncate", parties=parties)
    found = total(protection(parties=parties), vectors(dtype))
    assert np.array_equal(found, total(own, vectors(dtype)))
    exact = sum(np.append(np.clip(v[:500], -64, 64), v[500:]).astype(float) for v in vectors(dtype).values())
    assert np.abs(found - exact).max() < 3 * 2.0**-16
    assert np.abs(found[500:503] - exact[500:503]).max() <= 3 * 2.0**-27


def test_the_librarys_encoder_is_ours(protection):
    values = np.array([0.0, 0.5, -0.5, 1e-6, -1e-6, 2.0**-16, -(2.0**-16), 3.14159, -63.99999], np.float32)
    for precision in (8, 16):
        library = protection(precision=precision).set_up(("p", "q"))
        assert np.array_equal(library.encode(values), FixedPoint(precision).encode(values))


def test_shares_are_many_and_none_is_the_secret(protection):
    library = protection().set_up(("p", "q", "r"))
    integers = np.arange(1000, dtype=np.int64)
    shares = library.share(integers)
    assert len(shares) == 3 and not any(np.array_equal(share, integers) for share in shares)
    assert all(len(np.unique(share)) == 1000 for share in shares)
    with np.errstate(over="ignore"):
        assert np.array_equal(shares[0] + shares[1] + shares[2], integers)


def test_clipping_is_counted_and_what_is_not_finite_refused(protection):
    roles = protection().setup(HOSPITALS)
    protected = protect(roles, vectors())
    assert {name: made.clipped for name, made in protected.items()} == {"a": 1 / 507, "b": 0.0, "c": 0.0}
    sizes = {len(message) for made in protected.values() for message in made.messages.values()}
    assert min(sizes) > 8 * LAYOUT.size
    with pytest.raises(ProtectionError, match="not finite"):
        roles.hospitals["a"].protect(np.full(LAYOUT.size, np.nan), EXCHANGE)


def test_a_hospital_may_be_missing_and_no_party_may(protection):
    roles = protection().setup(HOSPITALS)
    sent = vectors()
    combined = combine(roles, protect(roles, {name: sent[name] for name in ("a", "c")}), ("a", "c"))
    assert (
        np.abs(roles.opener.open(combined, EXCHANGE).total[503:] - (sent["a"] + sent["c"])[503:]).max() < 1e-4
    )
    del combined["party-2"]
    with pytest.raises(ProtectionError, match="no answer from party-2"):
        roles.opener.open(combined, EXCHANGE)


def held(library, party):
    """Return how many objects a party's machine holds."""
    gc.collect()
    if hasattr(library, "workers"):
        return library.workers[party].objects_count()
    return len(library.clients[party].store)


def test_machines_keep_no_share_once_the_sum_is_fetched(protection):
    library = protection().set_up(("p", "q"))
    before = held(library, "p")
    pointers = [library.keep("p", np.arange(5)) for _ in range(3)]
    assert held(library, "p") == before + 3
    assert library.add(pointers).tolist() == [0, 3, 6, 9, 12]
    del pointers
    assert held(library, "p") == before


def test_messages_of_another_setup_or_altered_ones_are_refused(protection):
    roles, others = protection().setup(HOSPITALS), protection(clip=8.0).setup(HOSPITALS)
    party = roles.aggregators["party-1"]
    foreign = others.hospitals["a"].protect(vectors()["b"], EXCHANGE).messages["party-1"]
    with pytest.raises(MessageError, match=r"'a' refused.*fingerprints differ"):
        party.receive(foreign, EXCHANGE)
    message = bytearray(roles.hospitals["a"].protect(vectors()["b"], EXCHANGE).messages["party-1"])
    message[-30] ^= 1
    with pytest.raises(MessageError, match="altered"):
        party.receive(bytes(message), EXCHANGE)
    header = wire.parse(foreign).header
    with pytest.raises(MessageError, match=r"its share has 8 bytes, \d+ expected"):
        party.read(header, bytearray(8), EXCHANGE)


def test_impossible_options_are_refused(protection):
    with pytest.raises(SettingsError, match="parties = 1"):
        protection(parties=1)
    with pytest.raises(ProtectionError, match="could overflow"):
        protection(precision=52, clip=4096.0).setup(HOSPITALS)
    described = protection(clip=8.0).describe()
    assert (described["clip"], described["ring"], described["rounding"]) == (8.0, 64, "truncate")
    assert protection(clip=8.0).fingerprint != protection().fingerprint
    assert "all 3 parties" in protection().aggregator_sees
    assert "all hospitals" in protection(parties="hospitals").aggregator_sees


def test_the_benchmark_shows_both_beside_each_other():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "libraries.py"
    command = [sys.executable, str(script), "--params", "200", "--hospitals", "3", "--repeats", "1"]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if "same to the last bit" in line]
    assert rows == ["smpc", *(kind.name for kind in INSTALLED)]
