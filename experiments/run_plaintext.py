"""Train with updates in the clear: the baseline that the protections are measured against."""

from skinfl.cli import Invocation, experiment, train_and_report


def main(invocation: Invocation) -> None:
    """Train with updates in the clear: the baseline that the protections are measured against."""
    train_and_report(invocation)


if __name__ == "__main__":
    experiment("plaintext", main, {"protection": "plaintext"}, kind="train")
