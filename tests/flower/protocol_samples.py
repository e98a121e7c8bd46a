"""A valid request and answer of every kind, with everything filled in that may be, and ways to spoil them."""

import copy
import math

import msgpack

NAMES = ["hospital-1", "hospital-2", "hospital-3"]
RUN = "ab" * 16
SEALED = {
    "keys": dict.fromkeys(NAMES[1:], b"k" * 150),
    "public": dict.fromkeys(NAMES, b"p" * 32),
    "common": b"c" * 400,
}
_METRIC = {"sensitivity": 0.5, "specificity": 1.0, "auc": None, "support": 7}
METRICS = {
    "accuracy": 0.5,
    "balanced_accuracy": 0.25,
    "macro_f1": 0.2,
    "auc": None,
    "melanoma_sensitivity_at_90_specificity": 0.0,
    "ece": 0.1,
    "loss": 1.75,
    "per_class": {"nv": _METRIC, "mel": _METRIC},
    "confusion": [[3, 4], [1, 6]],
}
FIGURES = {
    "loss": 1.5,
    "clipped": 0.01,
    "seconds": {"train": 1.5, "protect": 0.25},
    "metrics": METRICS,
    "personal": METRICS,
}
_SUM = {"run": RUN, "round": 3, "kind": "train"}
_MESSAGES = dict.fromkeys(NAMES, b"m" * 40)
REQUESTS = {
    "join": {
        "run": RUN,
        "settings": {"lr": 0.1, "rounds": 1, "doconv": True, "bits": None, "model": "skinnet", "plugins": []},
        "hospitals": NAMES,
        "parties": {"party-1": "hospital-1", "party-2": "hospital-3"},
        "coordinator_key": b"q" * 32,
        "unit": 4096,
    },
    "statistics": {"run": RUN, "sealed": SEALED},
    "train": {"run": RUN, "round": 1, "participants": NAMES, "evaluate": False, "sealed": SEALED},
    "protect": {**_SUM, "attempt": 1, "cohort": NAMES[:2], "sealed": {}},
    "release": {**_SUM, "attempt": 0, "cohort": NAMES[:2], "sealed": {}},
    "combine": {**_SUM, "messages": {"party-1": _MESSAGES}, "senders": NAMES, "sealed": {}},
    "open": {**_SUM, "combined": {"aggregator": b"s" * 90}, "sealed": {}},
    "verify": {**_SUM, "senders": NAMES[:2], "dtype": "<i4", "sealed": {}},
    "evaluate": {"run": RUN, "round": 3, "participants": NAMES, "sealed": {}},
    "end": {"run": RUN, "sealed": {}},
}
_PROTECTED = {"messages": _MESSAGES, "figures": FIGURES, "vouchers": dict.fromkeys(NAMES, b"v" * 32)}
ANSWERS = {
    "join": {
        "classes": ["nv", "mel"],
        "image_shape": [3, 28, 28],
        "layout": "1f" * 16,
        "model": "2e" * 16,
        "weights": "",
        "public_key": b"p" * 32,
        "sealed": dict.fromkeys(NAMES[1:], b"k" * 150),
        "common": dict.fromkeys(NAMES[1:], b"c" * 400),
        "key_id": b"i" * 16,
        "opener_key": b"o" * 32,
    },
    "statistics": _PROTECTED,
    "train": _PROTECTED,
    "evaluate": {"messages": _MESSAGES, "figures": None, "vouchers": {}},
    "protect": {
        "messages": _MESSAGES,
        "figures": {**FIGURES, "seconds": None, "metrics": None, "personal": None},
        "vouchers": {},
    },
    "release": {"release": b"r" * 32},
    "combine": {"sums": {"party-1": b"s" * 40}, "refused": {"hospital-2": "its tag is wrong"}},
    "open": {"words": b"w" * 64, "dtype": "<i8", "senders": NAMES},
    "verify": {"proved": True},
    "end": {},
}

STRANGE = (
    *(None, True, False, 0, -1, 1, 2**63, 2**64 - 1, -(2**63), 10**7, 1e-300, 1e308, -0.5),
    *(
        math.nan,
        math.inf,
        -math.inf,
        "",
        "a",
        "1",
        "hospital-1",
        "../x",
        "a\nb",
        "\x1b[2J",
        "\u202e",
        "x" * 5000,
    ),
    *(b"", b"\xff" * 33, [], [[]], {}, {"": None}, {"x": {}}, [0] * 50, {str(i): i for i in range(50)}),
)


def places(value, found=()):
    """Return the paths of all values inside, at any depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found] + [path for key, each in inner for path in places(each, (*found, key))]


def swap(rng, message):
    """Replace, remove, double or rename a value at a random depth."""
    message = copy.deepcopy(message)
    *way, last = (paths := places(message)[1:])[rng.randint(len(paths))]
    inside = message
    for key in way:
        inside = inside[key]
    strange = copy.deepcopy(STRANGE[rng.randint(len(STRANGE))])
    how = rng.randint(5)
    if how == 0:
        del inside[last]
    elif how == 1 and isinstance(inside, list):
        inside.append(inside[last])
    elif how == 1:
        inside[strange if isinstance(strange, str) else "other"] = inside[last]
    else:
        inside[last] = strange
    return message


def spoil(rng, data, message, others):
    """Return a spoilt form of a message's bytes."""
    how = rng.randint(7)
    at = rng.randint(len(data))
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randint(8)]) + data[at + 1 :]
    if how == 2:
        return data[:at] + rng.bytes(rng.randint(1, 12)) + data[at + rng.randint(12) :]
    if how == 3:
        other = others[rng.randint(len(others))]
        return data[:at] + other[rng.randint(len(other)) :]
    if how == 4:  # a container or text that says it is huge
        first = (0xC6, 0xC9, 0xDB, 0xDD, 0xDF, 0xC4, 0xD9, 0xDC, 0xDE)[rng.randint(9)]
        return data[:at] + bytes([first]) + b"\xff" * rng.randint(5) + data[at + 1 :]
    return msgpack.packb(swap(rng, message), use_bin_type=True)
