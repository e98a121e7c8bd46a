"""A round of a protection in one process, as tests run it."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Sequence

import numpy as np
from comparison import assert_close

from skinfl.protection.base import Exchange, Opened, Protected, Protection, Roles
from skinfl.protection.layout import Layout, Segment

LAYOUT = Layout([Segment("conv", 150), Segment("bias", 7), Segment("counts", 2, "count"), Segment("fc", 41)])


class Round(NamedTuple):
    opened: Opened
    protected: Dict[str, Protected]
    combined: Dict[str, bytes]
    plain: np.ndarray


def hospitals(number: int) -> Sequence[str]:
    return [f"hospital-{i + 1}" for i in range(number)]


def vectors(number: int, layout: Layout = LAYOUT, seed: int = 0, scale: float = 0.3) -> Dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, scale, layout.size).astype(np.float32) for name in hospitals(number)}


def run_round(
    protection: Protection,
    values: Dict[str, np.ndarray],
    *,
    layout: Layout = LAYOUT,
    senders: Optional[Sequence[str]] = None,
    lost: Sequence[str] = (),
    number: int = 1,
    roles: Optional[Roles] = None,
) -> Round:
    """Protect, combine and open; ``senders`` survive to the sum, the parties in ``lost`` don't answer."""
    roles = roles or protection.setup(list(values))
    exchange = Exchange("run", number, layout)
    protected = {name: roles.hospitals[name].protect(v, exchange) for name, v in values.items()}
    for name, result in protected.items():
        assert set(result.messages) == set(roles.aggregators)
        for party, message in result.messages.items():
            assert roles.aggregators[party].receive(message, exchange) == name
    senders = list(values) if senders is None else senders
    combined = {p: a.combine(senders, exchange) for p, a in roles.aggregators.items() if p not in lost}
    opened = roles.opener.open(combined, exchange)
    plain = np.sum([values[name].astype(np.float64) for name in senders], axis=0)
    return Round(opened, protected, combined, plain)


def hold_to_bound(protection: Protection, values: Dict[str, np.ndarray], layout: Layout = LAYOUT) -> None:
    """Open three sums, as ranges are agreed from round to round; each is the plain one but for the bound."""
    roles = protection.setup(list(values))
    for number in (1, 2, 3):
        result = run_round(protection, values, layout=layout, number=number, roles=roles)
        assert not any(each.clipped for each in result.protected.values())
        assert result.opened.senders == tuple(values)
        assert_close(protection, result.opened.total, result.plain, list(values.values()))
        if result.opened.ranges is not None:
            for side in roles.hospitals.values():
                side.set_ranges(result.opened.ranges)
