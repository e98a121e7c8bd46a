"""Flower's simulation engine: many hospitals in a few processes, each with a folder as in a deployment."""

from __future__ import annotations

from pathlib import Path

from skinfl.assembly import FederatedData, load_federated_data, unit_images
from skinfl.flower.local.data_folders import hand_out, hand_weights
from skinfl.flower.provisioning.defaults import WIDE_LIMITS
from skinfl.flower.provisioning.folders import COORDINATOR_FILE
from skinfl.flower.provisioning.provision import PROTECTIONS, provision
from skinfl.settings import Settings


def make_federation(
    federated: FederatedData, out: Path, server: str = "localhost", pretrained: str = "none"
) -> None:
    """Provision a federation on this machine and hand each hospital its part of ``federated``.

    Its hospitals accept every protection, sums of two and whatever settings allow, tell their own figures
    and train from the run's seed: they are all on this machine, and runs are compared bit for bit.
    ``pretrained`` weights are named to each as its own.
    """
    provision(
        list(federated.partition),
        server,
        out,
        listen="127.0.0.1",
        minimum_others=1,
        protections=PROTECTIONS,
        own_figures=True,
        reproducible=True,
        limits=WIDE_LIMITS,
    )
    hand_out(federated, out)
    hand_weights(pretrained, tuple(federated.partition), out)


def load_to_hand_out(settings: Settings) -> FederatedData:
    """Load, split and share out the data as hospitals get them, who correct colours themselves."""
    return load_federated_data(settings.replace(colour_constancy=None))


def largest_part(federated: FederatedData) -> int:
    """Return the unit that virtual workers would have for these data."""
    return unit_images(max(len(federated.train_of(name)) for name in federated.partition))


def prepare_simulation(settings: Settings, federation: Path, hospitals: int) -> Settings:
    """Make the federation of a simulated run unless it is there; return settings that fit it."""
    # the paper's partition is of five hospitals
    partition = None if settings.partition == "paper" else settings.given.get("partition")
    settings = settings.replace(hospitals=hospitals, partition=partition)
    if not (federation / "coordinator" / COORDINATOR_FILE).is_file():
        make_federation(load_to_hand_out(settings), federation, pretrained=settings.pretrained)
    return settings
