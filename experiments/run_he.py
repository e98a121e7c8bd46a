"""Train with homomorphically encrypted updates (HE): the aggregator adds ciphertexts."""

from skinfl.cli import Request, experiment, train_and_report


def main(request: Request) -> None:
    """Train with homomorphically encrypted updates (HE): the aggregator adds ciphertexts."""
    train_and_report(request)


if __name__ == "__main__":
    experiment("he", main, {"protection": "he"})
