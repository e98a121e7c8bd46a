"""Protecting takes memory for the message and little else."""

import tracemalloc

import numpy as np
import pytest
from comparison import built, protections
from protection_helpers import hospitals

from skinfl.protection.base import Exchange
from skinfl.protection.layout import Layout, Segment

SIZE = 1_500_000
FIXED = 6_000_000  # blocks, scratch space and Python's own, whatever the vector's length


# a library that shares in its own way takes what it takes
@pytest.mark.parametrize("choice", protections(but=["sympc", "pysyft"]))
def test_peak_is_the_message_and_a_constant(choice):
    layout = Layout([Segment("w", SIZE), Segment("n", 1, "count")])
    side = built(choice).setup(hospitals(2)).hospitals["hospital-1"]
    side.set_ranges(np.array([1.0]))
    vector = np.zeros(layout.size, np.float32)
    tracemalloc.start()
    try:
        messages = side.protect(vector, Exchange("r", 1, layout)).messages
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sent = sum(map(len, messages.values()))
    assert peak < 1.15 * sent + FIXED
    assert peak < 2 * vector.nbytes + FIXED + 0.15 * sent
