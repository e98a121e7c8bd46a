"""How large a message becomes when it is decoded, told before it is."""

from __future__ import annotations

from typing import Dict, Tuple

#: what msgpack's first byte says: how many bytes of length or value follow, and what is meant by them
_WIDTHS: Dict[int, Tuple[str, int]] = {
    **dict.fromkeys((192, 194, 195), ("value", 0)),
    **{0xC4 + i: ("bytes", 1 << i) for i in range(3)},
    **{0xCA + i: ("value", 4 << i) for i in range(2)},
    **{0xCC + i: ("value", 1 << i) for i in range(4)},
    **{0xD0 + i: ("value", 1 << i) for i in range(4)},
    **{0xD9 + i: ("bytes", 1 << i) for i in range(3)},
    **{0xDC + i: ("list", 2 << i) for i in range(2)},
    **{0xDE + i: ("map", 2 << i) for i in range(2)},
}


def check_size(data: bytes, values: int, depth: int) -> None:
    """Refuse msgpack that would become more than ``values`` values, or nested deeper than ``depth``.

    Done before anything is decoded: a few bytes can ask for containers that take a hundred times their
    room. Raises ValueError, also for what ends early and for extension types.
    """
    at, left = 0, [1]  # how many values are still to come, in each container that is open
    while left:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        values -= 1
        if values < 0 or at >= len(data):
            raise ValueError("too many values, or cut short")
        first = data[at]
        at += 1
        inside = 0
        if first <= 0x7F or first >= 0xE0:
            continue
        if first <= 0x8F:
            inside = 2 * (first & 0x0F)
        elif first <= 0x9F:
            inside = first & 0x0F
        elif first <= 0xBF:
            at += first & 0x1F
        else:
            if first not in _WIDTHS:
                raise ValueError("an extension type")
            what, width = _WIDTHS[first]
            length = 0 if what == "value" else int.from_bytes(data[at : at + width], "big")
            at += width
            if what == "bytes":
                at += length
            else:
                inside = length * (2 if what == "map" else 1)
        if inside:
            left.append(inside)
            if len(left) > depth + 1:
                raise ValueError("nested too deeply")
