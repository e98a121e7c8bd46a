"""A whole federation on this machine as an experiment: provision, start, train, gather, stop."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from skinfl.assembly import FederatedData
from skinfl.errors import MissingExtra, SettingsError
from skinfl.federation.records import read_records
from skinfl.files import write_json, write_text
from skinfl.flower.approve import approve, bundle_digest
from skinfl.flower.environment import FEDERATION_VARIABLE
from skinfl.flower.local.memory import MemoryWatch
from skinfl.flower.local.processes import LocalDeployment, ProcessError, free_ports
from skinfl.flower.local.simulation import largest_part, make_federation
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.models.registry import is_file
from skinfl.report import html, plots
from skinfl.run import FIGURES, RESULT, ROUNDS, describe_data, describe_partition, parts_of
from skinfl.settings import Settings, to_toml

#: with more hospitals than this, three of them add up shares instead of all
MOST_PARTIES = 10
_FEW_PARTIES = 3


def flower_settings(settings: Settings) -> Settings:
    """Return the settings with what Flower's runs default to: hospitals add up the shares themselves."""
    if settings.protection != "smpc" or "parties" in settings.given:
        return settings
    return settings.replace(parties="hospitals" if settings.hospitals <= MOST_PARTIES else _FEW_PARTIES)


def run_experiment(
    settings: Settings,
    federated: FederatedData,
    out: Path,
    app: Path,
    *,
    simulation: bool = False,
    resume: bool = False,
    timeout: float = 24 * 3600.0,
    options: Optional[Dict[str, Any]] = None,
    show: Callable[[str], None] = print,
) -> Dict[str, Any]:
    """Train on processes of Flower and leave in ``out`` what a run on virtual workers leaves.

    ``app`` is the checkout whose code is run, ``options`` are further keys of ``--run-config``. Returns
    the content of ``result.json``, to which ``memory`` is added: the processes' peak in bytes. Raises a
    :class:`~skinfl.errors.SkinflError` where the run does not end well; everything is stopped in any case.
    """
    if simulation and importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "simulation", "Flower's simulation engine")
    out = Path(out).resolve()
    federation = out / "federation"
    if not resume:
        server = f"127.0.0.1:{free_ports(1)[0]}"
        make_federation(federated, federation, server, settings.pretrained)
    elif not federation.is_dir():
        raise SettingsError(f"{out} holds no Flower run to go on with")
    digest = bundle_digest(app)
    for name in federated.partition:
        approve(read_hospital(federation / name), digest, "this checkout")
    config = out / "flower.toml"
    if is_file(settings.pretrained):  # Flower's processes run in folders of their own
        settings = settings.replace(pretrained=str(Path(settings.pretrained).resolve()))
    write_text(config, to_toml(settings))
    run_config = {
        "config": str(config),
        "out": str(out),
        "resume": resume,
        "unit": largest_part(federated),
        "test-data": str(federation / "coordinator" / "test"),
        **(options or {}),
    }
    environment = {FEDERATION_VARIABLE: str(federation)} if simulation else {}
    deployment = LocalDeployment(federation, out / "logs", simulation=simulation, environment=environment)
    with deployment, MemoryWatch(deployment.running) as memory:
        deployment.start()
        run = deployment.submit(app, run_config, _engine(len(federated.partition)) if simulation else None)
        status = deployment.wait(run, timeout, show)
    if status != "finished:completed":
        raise ProcessError(f"the run ended as {status}: see {out / 'logs' / 'run.log'}")
    return _complete(settings, out, federated, memory.peak)


def _engine(hospitals: int) -> Dict[str, Any]:
    """Return how the simulation engine is set up: as many hospitals at a time as there are cores."""
    return {
        "num-supernodes": hospitals,
        "client-resources-num-cpus": 1,
        "init-args-num-cpus": max(1, os.cpu_count() or 1),
    }


def _complete(settings: Settings, out: Path, federated: FederatedData, peak: Any) -> Dict[str, Any]:
    """Add to the coordinator's result what only this machine knows, and draw the report."""
    result = json.loads((out / RESULT).read_text("utf-8"))
    parts = parts_of(settings, federated)
    result["data"] = describe_data(federated, parts)
    result["partition"] = describe_partition(federated, parts)
    result["memory"] = {"peak_bytes": peak}
    write_json(out / RESULT, result)
    records = read_records(out / ROUNDS)
    html.write_report(out, result, records, plots.draw_run(out / FIGURES, result, records))
    return result
