"""The server's state: named arrays, each declared by the strategy that keeps it.

A strategy says once which arrays it has, how long they are and what they are
(:meth:`~skinfl.federation.strategies.base.Strategy.state_layout`). Checkpoints, messages and the checks of
both go by that declaration, so that a strategy with other arrays needs no line of code elsewhere.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, Mapping, NamedTuple, Tuple

import numpy as np

#: trainable parameters, which a strategy moves by its own step
PARAMETERS = "parameters"
#: BatchNorm's running means and variances: no gradients, so they are averaged and never scaled
STATISTICS = "statistics"
#: what the strategy keeps for itself: control variates, moments
AUXILIARY = "auxiliary"
#: a mean of models, which is evaluated and kept in the place of the last one
AVERAGE = "average"
ROLES = (PARAMETERS, STATISTICS, AUXILIARY, AVERAGE)


class StateArray(NamedTuple):
    """One declared array: float32, shape ``(size,)``.

    ``role`` is one of :data:`ROLES`; parameters, then statistics, are the model. All arrays are in a
    checkpoint, and at every hospital, which computes the next ones itself.
    """

    name: str
    size: int
    role: str


class ServerState(Mapping[str, np.ndarray]):
    """An immutable mapping from the declared names to their arrays, float32 and read-only.

    ``declared`` are the arrays as the strategy declares them, in that order. Values of another number
    type are rounded to float32 once. Raises :class:`ValueError` for a name or a shape that was not declared.
    """

    declared: Tuple[StateArray, ...]
    _values: Dict[str, np.ndarray]

    def __init__(self, declared: Iterable[StateArray], arrays: Mapping[str, np.ndarray]):
        own = tuple(StateArray(*d) for d in declared)
        if len({d.name for d in own}) != len(own) or any(d.role not in ROLES for d in own):
            raise ValueError(f"state arrays need distinct names and a role of {', '.join(ROLES)}")
        if set(arrays) != {d.name for d in own}:
            expected = ", ".join(f"{d.name} ({d.size} values)" for d in own)
            raise ValueError(f"its arrays are not those of this strategy, which has {expected}")
        values = {}
        for d in own:
            values[d.name] = np.array(arrays[d.name], np.float32)
            values[d.name].setflags(write=False)
            if values[d.name].shape != (d.size,):
                raise ValueError(f"{d.name} has shape {values[d.name].shape}, ({d.size},) expected")
        self.__dict__.update(declared=own, _values=values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a server state is immutable: use replace({name}=...)")

    def __getitem__(self, name: str) -> np.ndarray:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ServerState)
            and other.declared == self.declared
            and all(np.array_equal(other[name], self[name]) for name in self)
        )

    def __repr__(self) -> str:
        return f"ServerState({', '.join(f'{d.name}: {d.size} {d.role}' for d in self.declared)})"

    @property
    def model(self) -> np.ndarray:
        """Return parameters and statistics as one new float32 vector, shape ``(layout.size,)``."""
        return np.concatenate([self[d.name] for role in ROLES[:2] for d in self.declared if d.role == role])

    @property
    def evaluated(self) -> np.ndarray:
        """Return what is evaluated and kept, a new vector: the mean of models where there is one."""
        means = [self[d.name] for d in self.declared if d.role == AVERAGE]
        return means[0].copy() if means else self.model

    def with_evaluated(self, model: np.ndarray) -> ServerState:
        """Return a state of which that vector is evaluated: in the mean's place, or else in the model's."""
        declared = [d for d in self.declared if d.role == AVERAGE][:1] or [
            d for role in ROLES[:2] for d in self.declared if d.role == role
        ]
        if model.shape != (sum(d.size for d in declared),):
            raise ValueError(f"the model has shape {model.shape}, which is not this state's")
        parts = np.split(model, np.cumsum([d.size for d in declared])[:-1])
        return self.replace(**{d.name: part for d, part in zip(declared, parts)})

    def replace(self, **arrays: np.ndarray) -> ServerState:
        """Return a state with some arrays exchanged."""
        return ServerState(self.declared, {**self._values, **arrays})
