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


def needs_releases(roles: Roles) -> bool:
    """Tell whether what hospitals send is masked, so that exactly those asked can be added."""
    return any(side.releases for side in roles.aggregators.values())


def combine(
    roles: Roles,
    protected: Dict[str, Protected],
    senders: Sequence[str],
    exchange: Exchange,
    lost: Sequence[str] = (),
) -> Dict[str, bytes]:
    """Have the parties add what they received."""
    releases = {name: result.release for name, result in protected.items()}
    return {
        party: side.combine(senders, exchange, releases)
        for party, side in roles.aggregators.items()
        if party not in lost
    }


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
    senders = list(values) if senders is None else senders
    exchange = Exchange("run", number, layout, cohort=tuple(senders))
    asked = senders if needs_releases(roles) else values
    protected = {name: roles.hospitals[name].protect(values[name], exchange) for name in asked}
    for name, result in protected.items():
        assert set(result.messages) == set(roles.aggregators)
        for party, message in result.messages.items():
            assert roles.aggregators[party].receive(message, exchange) == name
    combined = combine(roles, protected, senders, exchange, lost)
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
