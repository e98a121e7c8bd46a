"""What a terminal shows while data are read."""

from __future__ import annotations

import io
import re

from rich.console import Console

from skinfl import console


def test_a_stage_is_one_bar_whatever_words_tell_the_time_left(monkeypatch):
    bars = []
    original = console._bar
    monkeypatch.setattr(console, "_bar", lambda shown: bars.append(original(shown)) or bars[-1])
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=100)
    with console.loading(terminal) as show:
        for view in (1, 2):
            for done in range(1, 21):
                show(done, 20, f"view {view}, {20 - done} s left" if done < 20 else f"view {view}")
        for done in (1, 2, 3):
            show(done, 3, "centralised trains")
        for done in (1, 2):
            show(done, 3, "federated")
        show(0, 0, "a remark is no bar")
    tasks = bars[0].tasks
    assert [task.description for task in tasks] == ["view 1", "view 2", "centralised trains", "federated"]
    assert [task.completed for task in tasks] == [20, 20, 3, 2]
    assert re.search(r"a remark is no bar\n", out.getvalue())
