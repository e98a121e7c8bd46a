"""The command line's part that prepares machines of their own. Needs no Flower."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from skinfl.flower.provisioning.defaults import DEFAULT_MAXIMUM_PARAMETERS, DEFAULT_PROTECTIONS
from skinfl.paths import path


def provision(
    hospitals: str = typer.Option(..., help="names of the hospitals, separated by commas"),
    server: str = typer.Option(..., help="the coordinator as hospitals reach it: HOST or HOST:PORT"),
    out: Path = typer.Option(..., parser=path, help="the folder to make; must not exist"),
    listen: str = typer.Option("0.0.0.0", help="address on which the coordinator listens"),
    minimum_others: Optional[int] = typer.Option(
        None, help="a hospital refuses a sum of fewer other hospitals; 2, and 1 for two hospitals"
    ),
    maximum_parameters: int = typer.Option(
        DEFAULT_MAXIMUM_PARAMETERS, help="a hospital refuses a larger model"
    ),
    protections: str = typer.Option(
        ",".join(DEFAULT_PROTECTIONS),
        help="protections that a hospital accepts, separated by commas; 'plaintext' shows its updates",
    ),
    own_figures: bool = typer.Option(
        False, "--own-figures", help="a hospital's own loss, metrics and times may leave it in the clear"
    ),
    reproducible: bool = typer.Option(
        False, "--reproducible", help="training draws on the run's seed, not on a hospital's own randomness"
    ),
) -> None:
    """Make certificates, keys, configuration and start scripts: one folder per hospital."""
    from skinfl.flower.provisioning import provision as provisioning

    folders = provisioning.provision(
        hospitals.split(","),
        server,
        out,
        listen=listen,
        minimum_others=minimum_others,
        maximum_parameters=maximum_parameters,
        protections=[name.strip() for name in protections.split(",")],
        own_figures=own_figures,
        reproducible=reproducible,
    )
    for folder in folders:
        typer.echo(str(folder))
    typer.echo("Hand each folder to its owner over a channel you trust, then delete it here.")


def register(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    app.command(
        epilog="Examples:\n\nskinfl provision --hospitals north,south --server fl.example.org --out made"
    )(provision)
