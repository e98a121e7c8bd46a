"""Train with homomorphically encrypted updates (HE): the aggregator adds ciphertexts."""

from skinfl.cli import Invocation, experiment, train_and_report


def main(invocation: Invocation) -> None:
    """Train with homomorphically encrypted updates (HE): the aggregator adds ciphertexts."""
    train_and_report(invocation)


if __name__ == "__main__":
    experiment("he", main, {"protection": "he"}, kind="train")
