"""Train with secret-shared updates (SMPC): aggregating parties see random shares only."""

from skinfl.cli import Invocation, experiment, train_and_report


def main(invocation: Invocation) -> None:
    """Train with secret-shared updates (SMPC): aggregating parties see random shares only."""
    train_and_report(invocation)


if __name__ == "__main__":
    experiment("smpc", main, {"protection": "smpc"}, kind="train")
