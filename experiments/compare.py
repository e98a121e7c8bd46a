"""Train under plaintext, SMPC and HE with the same seeds and print the three side by side."""

import typer

from skinfl.cli import Invocation, compare_and_report, experiment


def main(
    invocation: Invocation,
    protections: str = typer.Option("smpc,he", help="protections to compare with plaintext, by comma"),
) -> None:
    """Train under plaintext, SMPC and HE with the same seeds and print the three side by side."""
    compare_and_report(invocation, protections)


if __name__ == "__main__":
    experiment("compare", main, {"protection": "plaintext"})
