"""One deployment on real processes for all slow tests: starting one takes half a minute."""

from typing import NamedTuple

import pytest


class Running(NamedTuple):
    """A federation's processes, the app that its hospitals approved, and the data they hold."""

    deployment: object
    app: object
    federated: object


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """Start a SuperLink and three SuperNodes; afterwards nothing of them may be left."""
    from flower_helpers import approved_federation, small_federated, snapshot

    from skinfl.flower.local.processes import LocalDeployment

    root = tmp_path_factory.mktemp("running")
    app, federated = snapshot(root), small_federated()
    federation = approved_federation(root / "federation", app, federated)
    with LocalDeployment(federation, root / "logs") as deployment:
        deployment.start()
        yield Running(deployment, app, federated)
    assert deployment.running() == []
