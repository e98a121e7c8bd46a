"""Train with updates in the clear: the baseline that the protections are measured against."""

from skinfl.cli import Request, experiment, train_and_report


def main(request: Request) -> None:
    """Train with updates in the clear: the baseline that the protections are measured against."""
    train_and_report(request)


if __name__ == "__main__":
    experiment("plaintext", main, {"protection": "plaintext"})
