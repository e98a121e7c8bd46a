"""What a hospital is set up to allow unless told otherwise; apart, so that --help loads nothing else."""

from __future__ import annotations

#: values that a model may have
DEFAULT_MAXIMUM_PARAMETERS = 30_000_000
#: a hospital lets nothing out unprotected unless it was set up to
DEFAULT_PROTECTIONS = ("smpc", "he")
