"""What protecting costs in accuracy, time and bytes: several protections over several seeds."""

import typer

from skinfl.cli import Invocation, experiment, variants_and_report


def main(
    invocation: Invocation,
    variants: str = typer.Option(
        "smpc,he-ckks,he-bfv-16", help="variants to measure beside plaintext, by comma"
    ),
    seeds: int = typer.Option(1, min=1, help="how many seeds, from --seed upwards"),
) -> None:
    """Train under several protections and seeds; print accuracy, time and bytes against plaintext's."""
    variants_and_report(invocation, variants, seeds)


if __name__ == "__main__":
    experiment(
        "variants", main, {"protection": "plaintext", "he_scheme": None, "bits": None}, resumable=False
    )
