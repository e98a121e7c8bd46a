"""The registry of strategies, and the options that several share. Each registers itself in its own file."""

from __future__ import annotations

from skinfl.registry import Option, Registry

STRATEGIES = Registry("strategy", group="Training", help="federated strategy", default="fedavg")

#: every strategy that averages takes it
SERVER_LR = Option("server_lr", float, 1.0, "step size of the server on the averaged update", low=1e-8)
