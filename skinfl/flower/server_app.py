"""Flower's server app: one run of the coordinator."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from skinfl import plugins, tracking
from skinfl.errors import SkinflError, printable
from skinfl.flower.coordinator.coordinator import Coordinator, run_folder
from skinfl.flower.coordinator.grid_messaging import GridMessaging
from skinfl.flower.coordinator.log import RunLog
from skinfl.flower.coordinator.options import read_run_config
from skinfl.flower.environment import (
    COORDINATOR_VARIABLE,
    FEDERATION_VARIABLE,
    flower_home,
    simulated_federation,
)
from skinfl.flower.local.simulation import prepare_simulation
from skinfl.flower.provisioning.folders import read_coordinator

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train as the run configuration says."""
    try:
        plugins.load_for([])
        _train(grid, context)
    except SkinflError as error:
        _say(f"run {context.run_id}: ended: {error}")
        raise


def _train(grid: Grid, context: Context) -> None:
    settings, options = read_run_config(context.run_config)
    coordinator = os.environ.get(COORDINATOR_VARIABLE)
    kind = "deployment"
    if coordinator is None or FEDERATION_VARIABLE in os.environ:
        kind = "simulation"
        federation = simulated_federation(flower_home(), context.run_id)
        settings = prepare_simulation(settings, federation, len(list(grid.get_nodes())))
        coordinator = str(federation / "coordinator")
    folder = read_coordinator(Path(coordinator))
    out, _ = run_folder(folder.path, options, settings.protection, time.strftime("%Y%m%d-%H%M%S"))
    run = Coordinator(
        settings.replace(hospitals=len(folder.hospitals)),
        options,
        out,
        GridMessaging(grid, folder.hospitals, options.return_timeout),
        say=_say,
        describe=f"flower {version('flwr')}, {kind}",
    )
    _say(f"run {context.run_id}: writes to {out}")
    trackers = tracking.listeners(tracking.check(options.track), out, settings.asdict(), _say)
    try:
        run.run(folder.hospitals, [RunLog(str(context.run_id), _say), *trackers])
    finally:
        for tracker in trackers:
            tracker.close()


def _say(line: str) -> None:
    print(printable(line), flush=True)
