"""What stands between training and protection: an update is transformed before it is protected.

A transform is one small object with two halves, as pfl-research's postprocessors are: a hospital's, which
sees that hospital's contribution, and the server's, which sees the opened sum only. Protections add
whatever vector comes out of the last hospital's half, and a strategy is given what comes out of the last
server's half: neither knows of transforms, so every transform works under every protection and strategy::

    strategy.contribute -> at_hospital 1 .. n -> protect -> sum -> open -> at_server n .. 1 -> strategy.apply

A transform may change values, shorten the vector or append segments to it; :meth:`UpdateTransform.layout`
says what the vector becomes, from the layout alone, so that both ends derive it for themselves. Segments
are found by name: ``model/`` (change of trained parameters, times the weight), ``statistics/``
(BatchNorm's, likewise), ``control/`` (change of the control variate), ``counts`` (the weight first). The
sums of pixels and class counts before the first round are not transformed.

What enters the sum must be right to add: the server's half gets ``sum(at_hospital(v_k))`` and must give
back ``sum(v_k)``, or what stands for it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Callable, ClassVar, Dict, List, Mapping, NamedTuple, Sequence, Tuple, Type

import numpy as np

from skinfl.errors import ProtectionError, SettingsError
from skinfl.protection import wire
from skinfl.protection.layout import Layout

#: what a server's half tells the round's record, e.g. how many hospitals were clipped
Figures = Dict[str, float]


class HospitalContext(NamedTuple):
    """What a hospital's half is told beside the vector.

    ``layout``: of the vector it is handed. ``seed(*purpose)``: a seed for that purpose in this round, the
    same at all hospitals and at the server; it protects no secret. ``accepted_round``: the last round in
    which this hospital's contribution entered the sum, -1 where none did; what was kept for a round
    that was lost must not be counted as sent.
    """

    run: str
    round: int
    layout: Layout
    seed: Callable[..., int]
    hospital: str
    accepted_round: int


class ServerContext(NamedTuple):
    """What a server's half is told beside the sum.

    ``layout``: of the vector that the hospital's half was handed, so of what is to be given back.
    ``seed`` as at the hospital. ``senders``: the hospitals in the sum.
    """

    run: str
    round: int
    layout: Layout
    seed: Callable[..., int]
    senders: Tuple[str, ...]


class UpdateTransform:
    """Base of all transforms; does nothing by itself.

    Subclasses are dataclasses whose fields are the transform's public parameters, equal at all hospitals
    and the server: they make its fingerprint. Each field takes the setting of its name. What a hospital
    keeps between rounds is no such field: declare it ``field(init=False)``.
    """

    #: the name in settings, records and reports
    name: ClassVar[str]

    def layout(self, layout: Layout) -> Layout:
        """Return the layout of what :meth:`at_hospital` makes of a vector of ``layout``."""
        return layout

    def at_hospital(self, vector: np.ndarray, context: HospitalContext) -> np.ndarray:
        """Return what is sent instead of ``vector``.

        ``vector``: float32, shape ``(context.layout.size,)``, not to be changed in place. The result is
        of shape ``(self.layout(context.layout).size,)``. Raises
        :class:`~skinfl.errors.ProtectionError` where nothing may be sent.
        """
        return vector

    def at_server(self, total: np.ndarray, context: ServerContext) -> Tuple[np.ndarray, Figures]:
        """Return the sum of the vectors that the hospitals' halves were handed, and public figures.

        ``total``: float64, shape ``(self.layout(context.layout).size,)``, not to be changed in place.
        The result is of shape ``(context.layout.size,)``. Raises
        :class:`~skinfl.errors.ProtectionError` for a sum that must not be applied.
        """
        return total, {}

    def state(self) -> Dict[str, np.ndarray]:
        """Return what a hospital keeps between rounds, as arrays by name."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""

    def describe(self) -> Dict[str, object]:
        """Return name and parameters."""
        return {"name": self.name, **{key: getattr(self, key) for key in parameters(type(self))}}

    @property
    def fingerprint(self) -> str:
        """A digest of name and parameters."""
        return wire.fingerprint(sorted(self.describe().items()))


def parameters(cls: Type[UpdateTransform]) -> List[str]:
    """Return the names of a transform's public parameters."""
    return [f.name for f in dataclasses.fields(cls) if f.init] if dataclasses.is_dataclass(cls) else []


class Pipeline:
    """Transforms in the order of the hospital's halves; the server's halves run the other way round.

    Hospitals and server each make their own from the same settings. The layout of what is protected
    carries the list's fingerprint, so that a message made under another list is refused.
    """

    def __init__(self, transforms: Sequence[UpdateTransform] = ()):
        self.transforms = tuple(transforms)
        names = [t.name for t in self.transforms]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise SettingsError(f"transforms names {repeated[0]!r} twice: name each transform once")

    def layout(self, contribution: Layout) -> Layout:
        """Return the layout that is protected where strategies contribute vectors of ``contribution``."""
        segments = self._layouts(contribution)[-1].segments
        return Layout(segments, transforms=self.fingerprint)

    def at_hospital(self, vector: np.ndarray, context: HospitalContext) -> np.ndarray:
        """Return a contribution as it is to be protected; ``context.layout`` is the contribution's."""
        layouts = self._layouts(context.layout)
        for i, transform in enumerate(self.transforms):
            vector = transform.at_hospital(
                vector, context._replace(layout=layouts[i], seed=partial(context.seed, transform.name))
            )
            _check_shape(transform, "hospital", vector, layouts[i + 1])
        return vector

    def at_server(self, total: np.ndarray, context: ServerContext) -> Tuple[np.ndarray, Dict[str, Figures]]:
        """Return the sum of the contributions, and the transforms' figures by their names."""
        layouts = self._layouts(context.layout)
        figures: Dict[str, Figures] = {}
        for i, transform in reversed(list(enumerate(self.transforms))):
            total, found = transform.at_server(
                total, context._replace(layout=layouts[i], seed=partial(context.seed, transform.name))
            )
            _check_shape(transform, "server", total, layouts[i])
            if found:
                figures[transform.name] = found
        return total, figures

    def state(self) -> Dict[str, np.ndarray]:
        """Return what the hospital's halves keep between rounds."""
        return {f"{t.name}/{n}": array for t in self.transforms for n, array in t.state().items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""
        for t in self.transforms:
            prefix = t.name + "/"
            t.load_state({n[len(prefix) :]: a for n, a in state.items() if n.startswith(prefix)})

    def describe(self) -> List[Dict[str, object]]:
        """Return names and parameters, in order."""
        return [t.describe() for t in self.transforms]

    @property
    def fingerprint(self) -> str:
        """A digest of the list; empty for an empty one."""
        return wire.fingerprint(*(t.fingerprint for t in self.transforms)) if self.transforms else ""

    def _layouts(self, contribution: Layout) -> List[Layout]:
        """Return the layouts before each transform, and after the last."""
        layouts = [contribution]
        for transform in self.transforms:
            layouts.append(transform.layout(layouts[-1]))
        return layouts


def _check_shape(transform: UpdateTransform, half: str, vector: np.ndarray, layout: Layout) -> None:
    """Refuse what doesn't fit the layout, naming the transform that made it."""
    if np.shape(vector) != (layout.size,):
        raise ProtectionError(
            f"the {half}'s half of transform {transform.name!r} gave shape {np.shape(vector)}, "
            f"its layout has {layout.size} values"
        )
