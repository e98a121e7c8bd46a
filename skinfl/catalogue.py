"""Everything that can be chosen by name. Importing this declares what there is, and imports nothing heavy."""

from __future__ import annotations

from typing import Tuple

import skinfl.openmined  # noqa: F401 - registers itself
from skinfl.data.partitions import PARTITIONS
from skinfl.federation.losses import LOSSES
from skinfl.federation.optimisers import OPTIMISERS
from skinfl.federation.personal import PERSONAL
from skinfl.federation.schedule import LR_SCHEDULES
from skinfl.federation.strategies import STRATEGIES
from skinfl.federation.transforms import TRANSFORMS
from skinfl.models.registry import MODELS
from skinfl.protection import PROTECTIONS
from skinfl.registry import Registry
from skinfl.workers import WORKERS

#: where two chosen entries want another default of one option, the one further left decides
REGISTRIES: Tuple[Registry, ...] = (
    STRATEGIES,
    OPTIMISERS,
    LOSSES,
    LR_SCHEDULES,
    PERSONAL,
    TRANSFORMS,
    PROTECTIONS,
    MODELS,
    PARTITIONS,
    WORKERS,
)
