"""What a notebook's cell shows of a run: a bar while it lasts, lines that stay, nothing that is markup."""

from __future__ import annotations

import sys
import types

import pytest

from skinfl import display


@pytest.fixture
def cell(monkeypatch):
    """Stand in for IPython's display; return what was shown, the last at the end."""
    shown = []

    class Handle:
        def update(self, content):
            shown.append(content)

    def show(content, display_id):
        assert display_id is True
        shown.append(content)
        return Handle()

    module = types.ModuleType("IPython.display")
    module.HTML, module.display = str, show
    package = types.ModuleType("IPython")
    package.display = module
    package.get_ipython = lambda: type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_a_run_in_a_notebook_has_a_bar_and_a_line_for_each_round(toy, cell):
    from skinfl.assembly import assemble, load_federated_data
    from skinfl.settings import Settings

    settings = Settings(data="toy", hospitals=3, partition="iid", rounds=2, image_size=12, local_epochs=1)
    assembly = assemble(settings, load_federated_data(settings))
    with display.display_for("<plaintext>", True) as (listener,):
        assert isinstance(listener, display.NotebookDisplay)
        for event in assembly.federation.run():
            listener(event)
    assert "<progress" in cell[-2] and "&lt;plaintext&gt;" in "".join(cell)
    assert "<plaintext>" not in "".join(cell)
    assert "<progress" not in cell[-1] and cell[-1].count("\n") == 1  # two lines, and the bar is gone


def test_the_bar_goes_where_a_run_fails(cell):
    with pytest.raises(ValueError), display.display_for("run", True) as (listener,):
        listener._show(0.5, "round 1")
        assert "<progress" in cell[-1]
        raise ValueError
    assert cell[-1] == ""


def test_reading_data_in_a_notebook_keeps_remarks(cell):
    with display.loading_display(True) as show:
        show(1, 4, "images <b>")
        assert 'value="1"' in cell[-1] and "&lt;b&gt;" in cell[-1]
        show(0, 0, "a remark")
    assert cell[-1] == "<pre>a remark</pre>"


def test_nothing_is_shown_where_it_is_not_wanted(cell):
    with display.display_for("run", False) as listeners, display.loading_display(False) as show:
        assert (listeners, show) == ((), None)
    assert cell == []


def test_outside_a_notebook_it_is_the_command_lines_display(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert not display.in_notebook()
    with display.display_for("run", True) as (listener,):
        assert type(listener).__name__ == "RunDisplay"
