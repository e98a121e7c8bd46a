"""Train with secret-shared updates (SMPC): aggregating parties see random shares only."""

from skinfl.cli import Request, experiment, train_and_report


def main(request: Request) -> None:
    """Train with secret-shared updates (SMPC): aggregating parties see random shares only."""
    train_and_report(request)


if __name__ == "__main__":
    experiment("smpc", main, {"protection": "smpc"})
