"""What tests of encrypted inference share."""

from __future__ import annotations

import pytest
from encrypted_networks import random_network

from skinfl.inference.circuit.network import Bounds, Collapsed


@pytest.fixture(scope="session")
def network() -> Collapsed:
    return random_network()


@pytest.fixture(scope="session")
def bounds() -> Bounds:
    return Bounds(second=30.0, logits=60.0)
