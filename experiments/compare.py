"""Train under plaintext, SMPC and HE with the same seeds and print the three side by side."""

from typing import Optional

from skinfl.cli import PROTECTIONS, Invocation, compare_and_report, experiment


def main(invocation: Invocation, protections: Optional[str] = PROTECTIONS) -> None:
    """Train under plaintext, SMPC and HE with the same seeds and print the three side by side."""
    compare_and_report(invocation, protections)


if __name__ == "__main__":
    experiment("compare", main, {"protection": "plaintext"})
