"""Train on all data in one place, together and at each hospital alone: the two ends of the scale."""

import typer

from skinfl.cli import Invocation, experiment, scale_and_report


def main(
    invocation: Invocation,
    seeds: int = typer.Option(1, min=1, help="how many seeds, from --seed upwards"),
) -> None:
    """Train centralised, federated and at each hospital alone, and print the three side by side."""
    scale_and_report(invocation, seeds)


if __name__ == "__main__":
    experiment("centralised", main, {}, resumable=False)
