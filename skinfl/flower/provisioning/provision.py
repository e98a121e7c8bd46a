"""Make everything that a federation's members need: certificates, keys, configuration, start scripts.

Trust model: whoever runs this sees every secret once. Run it on a machine that is neither the
coordinator's nor reachable by it, hand each folder to its owner over a channel you trust, then delete
all of them; the ``authority`` folder is needed only to renew the server's certificate. A coordinator
that kept a hospital's folder could open the shares sealed to that hospital.

Needs no Flower: a hospital's security officer can run it and read what it made.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from skinfl.errors import SettingsError, nearest
from skinfl.files import whole_folder
from skinfl.flower.protocol import NAME
from skinfl.flower.provisioning import certificates
from skinfl.flower.provisioning.defaults import (
    DEFAULT_LIMITS,
    DEFAULT_MAXIMUM_PARAMETERS,
    DEFAULT_MINIMUM_OTHERS,
    DEFAULT_PROTECTIONS,
    Limits,
)
from skinfl.flower.provisioning.folders import COORDINATOR_FILE, HOSPITAL_FILE
from skinfl.protection.keys import readable

DEFAULT_PORT = 8000
#: the SuperNode's own port, reached only from the hospital's machine
NODE_PORT = 9094
PROTECTIONS = ("smpc", "he", "plaintext")

_DNS_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_RESERVED = ("coordinator", "authority")


class _Terms(NamedTuple):
    """What every hospital's file starts with; each may tighten its own."""

    minimum_others: int
    maximum_parameters: int
    protections: Tuple[str, ...]
    own_figures: bool
    reproducible: bool
    limits: Limits


def provision(
    hospitals: Sequence[str],
    server: str,
    out: Path,
    *,
    listen: str = "0.0.0.0",
    minimum_others: Optional[int] = None,
    maximum_parameters: int = DEFAULT_MAXIMUM_PARAMETERS,
    protections: Sequence[str] = DEFAULT_PROTECTIONS,
    own_figures: bool = False,
    reproducible: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> List[Path]:
    """Write ``out/coordinator``, ``out/authority`` and one folder per hospital; return the folders.

    ``server`` is ``HOST`` or ``HOST:PORT`` as the hospitals reach it. ``minimum_others`` is 2 unless given,
    and 1 for two hospitals. The rest is what each hospital's file starts with, see
    :class:`~skinfl.flower.provisioning.folders.HospitalFolder`. Nothing is left behind where something
    fails.

    Raises :class:`~skinfl.errors.SettingsError` for impossible names or limits, and where ``out`` exists.
    """
    hospitals = check_hospitals(hospitals)
    host, port = parse_server(server)
    if minimum_others is None:
        minimum_others = min(DEFAULT_MINIMUM_OTHERS, len(hospitals) - 1)
    if minimum_others < 1 or minimum_others > len(hospitals) - 1:
        raise SettingsError(
            f"minimum-others = {minimum_others}: with {len(hospitals)} hospitals it lies between 1 and "
            f"{len(hospitals) - 1}"
        )
    if maximum_parameters < 1:
        raise SettingsError(f"maximum-parameters = {maximum_parameters}: must be at least 1")
    for name in protections:
        if name not in PROTECTIONS:
            raise SettingsError(f"protection {name!r}: {nearest(name, PROTECTIONS)}")
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise SettingsError(f"{out} exists: keys are never overwritten; name another folder or move it away")

    authority = certificates.make_authority("skinfl authority of this federation")
    server_key, server_certificate = certificates.make_server(authority, host)
    ca = certificates.certificate_pem(authority.certificate)
    nodes = {name: certificates.make_node_key() for name in hospitals}
    sealing = {name: certificates.make_sealing_key() for name in hospitals}
    terms = _Terms(minimum_others, maximum_parameters, tuple(protections), own_figures, reproducible, limits)
    published = {name: public.hex() for name, (_, public) in sealing.items()}

    with whole_folder(out, private=True) as draft:
        _write_authority(draft / "authority", certificates.private_pem(authority.key), ca)
        coordinator = draft / "coordinator"
        _write_coordinator(coordinator, hospitals, host, port, listen)
        _write(coordinator / "ca.pem", ca)
        _write(coordinator / "server.pem", certificates.certificate_pem(server_certificate))
        _write(coordinator / "server.key", certificates.private_pem(server_key), 0o600)
        for name in hospitals:
            _write(coordinator / "hospitals" / f"{name}.pub", nodes[name][1])
            folder = draft / name
            _write_hospital(folder, name, _join(host, port), terms, published)
            _write(folder / "ca.pem", ca)
            _write(folder / "node.key", nodes[name][0], 0o600)
            _write(folder / "sealing.key", sealing[name][0].hex().encode() + b"\n", 0o600)
    return [out / "authority", out / "coordinator", *(out / name for name in hospitals)]


def check_hospitals(hospitals: Sequence[str]) -> List[str]:
    """Return the names, or raise for one that cannot be a folder, a key's name and a log's word."""
    names = [name.strip() for name in hospitals]
    for name in names:
        if not re.fullmatch(NAME, name):
            raise SettingsError(
                f"hospital name {name!r}: use 1 to 32 small letters, digits and hyphens, "
                "with no hyphen at either end"
            )
        if name in _RESERVED:
            raise SettingsError(f"hospital name {name!r} is taken by another folder: choose another name")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SettingsError(f"hospital {repeated[0]!r} is named twice")
    if len(names) < 2:
        raise SettingsError("a federation needs at least 2 hospitals: a sum of one hides nothing")
    return names


def parse_server(server: str) -> Tuple[str, int]:
    """Split ``HOST[:PORT]``; an IPv6 address with a port stands in brackets."""
    match = re.fullmatch(r"\[(?P<six>[^\]]+)\](:(?P<p6>\d+))?|(?P<host>[^:]+)(:(?P<port>\d+))?", server)
    if match:
        host = match.group("six") or match.group("host")
        port = int(match.group("p6") or match.group("port") or DEFAULT_PORT)
    else:
        host, port = server, DEFAULT_PORT
    if not _is_host(host):
        raise SettingsError(f"server {server!r}: expected a DNS name or an IP address, and maybe :PORT")
    if not 1 <= port <= 65535:
        raise SettingsError(f"server {server!r}: a port lies between 1 and 65535")
    return host, port


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
        return True
    except ValueError:
        pass
    # digits and dots alone would be a mistyped address, not a name
    return (
        len(host) <= 253
        and not re.fullmatch(r"[0-9.]+", host)
        and all(_DNS_LABEL.fullmatch(label) for label in host.split("."))
    )


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _write_authority(folder: Path, key: bytes, certificate: bytes) -> None:
    _write(folder / "ca.key", key, 0o600)
    _write(folder / "ca.pem", certificate)
    _write(
        folder / "README.md",
        b"The authority's private key. Keep it offline: whoever holds it can pose as the coordinator.\n",
    )


def _write_coordinator(folder: Path, hospitals: Sequence[str], host: str, port: int, listen: str) -> None:
    names = ", ".join(f'"{name}"' for name in hospitals)
    _write_text(
        folder / COORDINATOR_FILE,
        f"""# The coordinator's side of the federation. Hospitals reach it at {_join(host, port)}.
listen = "{listen}"
port = {port}
hospitals = [{names}]
""",
    )
    _write_text(
        folder / "environment.sh",
        """# Read by the other scripts: Flower's home is here, and Flower sends nothing to its makers.
export FLWR_HOME="$PWD/flower" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
""",
    )
    _write_text(
        folder / "start.sh",
        """#!/bin/sh
# Starts the SuperLink, to which the hospitals connect.
cd "$(dirname "$0")" && exec "${PYTHON:-python}" -m skinfl.flower.superlink --folder .
""",
        0o755,
    )
    _write_text(
        folder / "register.sh",
        """#!/bin/sh
# Tells the running SuperLink which hospitals may connect. Needed once.
set -eu
cd "$(dirname "$0")" && . ./environment.sh
for key in hospitals/*.pub; do
  flwr supernode register "$key" skinfl --name "$(basename "$key" .pub)"
done
""",
        0o755,
    )
    _write_text(
        folder / "run.sh",
        """#!/bin/sh
# Runs the app of a checkout: ./run.sh CHECKOUT --run-config 'rounds=20'
set -eu
app=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")" && . ./environment.sh
exec flwr run "$app" skinfl --stream "$@"
""",
        0o755,
    )
    _write_text(
        folder / "README.md",
        "The coordinator's folder. `./start.sh` starts the server, `./register.sh` admits the hospitals "
        "(once), `./run.sh CHECKOUT` trains. `server.key` is secret. See docs/deployment.md.\n",
    )


def _write_hospital(
    folder: Path,
    name: str,
    coordinator: str,
    terms: _Terms,
    sealing_keys: Dict[str, str],
) -> None:
    protections = ", ".join(f'"{protection}"' for protection in terms.protections)
    keys = "\n".join(
        f'# {readable(bytes.fromhex(key))}\n{other} = "{key}"' for other, key in sealing_keys.items()
    )
    _write_text(
        folder / HOSPITAL_FILE,
        f"""# What hospital {name} takes part in. The coordinator cannot change anything here.
name = "{name}"
coordinator = "{coordinator}"
# the SuperNode's own port; only this machine reaches it
port = {NODE_PORT}
# the folder with this hospital's images and table; relative to this file, or absolute
data = "data"
# a folder with test images; empty: some lesions of data are held out
test_data = ""
# a file of pretrained weights (.pth or .safetensors), for runs that start from it: the same as the others
# have; relative to this file, or absolute. Those that come as a package need no name here
pretrained = ""
# refuse a sum of fewer than this many other hospitals{_why_one(terms, sealing_keys)}
minimum_others = {terms.minimum_others}
# refuse a larger model
maximum_parameters = {terms.maximum_parameters}
# refuse to let an update out in any other way
protections = [{protections}]
# whether this hospital's own loss, metrics, clipped share and times may leave it in the clear
own_figures = {_word(terms.own_figures)}
# whether training draws on the run's seed, which the coordinator knows; else on randomness of its own, so
# that two runs on the same images cannot be subtracted from each other
reproducible = {_word(terms.reproducible)}

# ranges, ends included, in which the coordinator may choose; message_bytes: the longest message it may send
[limits]
{_limits(terms.limits)}

# every hospital's public key: shares and keys are sealed to these. Above each, its fingerprint: compare
# yours with what the others have, by telephone.
[sealing_keys]
{keys}
""",
    )
    _write_text(
        folder / "approved-code.txt",
        "# SHA-256 of each app bundle that this hospital is willing to run, one a line.\n"
        "# 'python -m skinfl.flower.approve --folder .' adds the one that is installed here.\n",
    )
    _write_text(
        folder / "start.sh",
        f"""#!/bin/sh
# Connects hospital {name} to the coordinator at {coordinator}.
cd "$(dirname "$0")" && exec "${{PYTHON:-python}}" -m skinfl.flower.supernode --folder .
""",
        0o755,
    )
    _write_text(
        folder / "README.md",
        f"Hospital {name}'s folder. Name your data in `{HOSPITAL_FILE}`, approve the code you have read "
        "(`python -m skinfl.flower.approve --folder .`), then `./start.sh`. `node.key` and `sealing.key` "
        "are secret and belong to this hospital alone. See docs/deployment.md.\n",
    )


def _why_one(terms: _Terms, hospitals: Dict[str, str]) -> str:
    if terms.minimum_others > 1:
        return ""
    why = "there are only two: " if len(hospitals) == 2 else ""
    return f".\n# 1, {why}who is alone with this hospital in a sum can subtract its own update from it"


def _word(value: bool) -> str:
    return "true" if value else "false"


def _limits(limits: Limits) -> str:
    pairs = dataclasses.asdict(limits).items()
    return "\n".join(f"{name} = {list(v) if isinstance(v, tuple) else v!r}" for name, v in pairs)


def _write_text(path: Path, text: str, mode: int = 0o644) -> None:
    _write(path, text.encode(), mode)


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Create a file with its final mode, so that a secret is never readable by others, however briefly."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as f:
        os.fchmod(f.fileno(), mode)
        f.write(content)
