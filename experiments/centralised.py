"""Train on all data in one place, together and at each hospital alone: the two ends of the scale."""

import typer

from skinfl.cli import Invocation, experiment, scale_and_report


def main(
    invocation: Invocation,
    seeds: int = typer.Option(1, min=1, help="how many seeds, from --seed upwards"),
    ways: str = typer.Option(
        "centralised,federated,local-only", help="which of these to train, with commas between them"
    ),
) -> None:
    """Train centralised, federated and at each hospital alone, and print these side by side.

    With --personal or --fine-tune-epochs, the models that hospitals keep for themselves stand beside them.
    """
    scale_and_report(invocation, seeds, ways)


if __name__ == "__main__":
    experiment("centralised", main, {}, resumable=False)
