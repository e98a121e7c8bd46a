"""What is said of a publisher's data set, and how readers talk while they work."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

#: ``progress(done, total, what)``; ``total`` 0 marks a remark rather than a step of some length.
Progress = Optional[Callable[[int, int, str], None]]


class Source(NamedTuple):
    """A data set that can be read; nothing is downloaded, ``page`` has the files.

    ``name``: one word for reports and messages. ``what``: the set in half a line, with its licence.
    ``page``: where to get it. ``layout``: the files as they lie in its folder.
    """

    name: str
    what: str
    page: str
    layout: str


def remark(progress: Progress, text: str) -> None:
    """Tell the user something that is neither a step nor an error."""
    if progress is not None:
        progress(0, 0, text)
