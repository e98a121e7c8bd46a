"""Write what is made from the declared settings: ``docs/settings.md`` and Flower's configuration.

``python -m skinfl.reference`` in a checkout does both; a test says whether they are up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

from skinfl.catalogue import REGISTRIES
from skinfl.errors import SettingsError
from skinfl.flower.coordinator.options import FLOWER_DEFAULTS, VIRTUAL_ONLY
from skinfl.registry import Entry, Option
from skinfl.settings import default_text, options

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs") / "settings.md"
PROJECT = Path("pyproject.toml")
_BEGIN = "# made by 'python -m skinfl.reference' from here"
_END = "# to here"
_OPENING = """# Settings

Made by `python -m skinfl.reference` from what is declared beside the code: do not edit it by hand.

Each setting is a flag of `skinfl train` and `skinfl compare` (`--batch-size`), a line of a TOML file for
`--config` (`batch_size = 16`), a keyword of `skinfl.settings.Settings`, and, but for what concerns virtual
workers only, a key of Flower's run configuration (`batch-size`). A run's `config.toml` holds what was given;
what followed from it stands there as comments. A setting that belongs to some choices only has no effect
under the others. [Extending](extending.md) shows how to register more to choose from.
"""


def settings_page() -> str:
    """Return ``docs/settings.md``."""
    owners = _owners()
    by_group: Dict[str, List[Option]] = {}
    for option in options().values():
        by_group.setdefault(option.group, []).append(option)
    parts = [_OPENING]
    for group, found in by_group.items():
        rows = [
            "| setting | type | default | limits | what it is | belongs to |",
            "|---|---|---|---|---|---|",
        ]
        rows += [_row(option, owners.get(option.name, [])) for option in found]
        parts.append(f"## {group}\n\n" + "\n".join(rows) + "\n")
        for registry in REGISTRIES:
            if registry.group == group:
                entries = "\n".join(f"- `{entry.name}`: {entry.summary}" for entry in registry)
                parts.append(f"`{registry.kind}` is one of:\n\n{entries}\n")
    return "\n".join(parts)


def flower_block() -> str:
    """Return the settings' keys of ``[tool.flwr.app.config]``; Flower takes no others."""
    lines = []
    for option in options().values():
        if option.name not in VIRTUAL_ONLY:
            value = FLOWER_DEFAULTS.get(option.name, "")
            lines.append(f'{option.dashed} = "{value}"')
    return "\n".join(lines) + "\n"


def with_block(project: str) -> str:
    """Return the text of ``pyproject.toml`` with :func:`flower_block` between its two marks."""
    before, begin, rest = project.partition(_BEGIN + "\n")
    _, end, after = rest.partition(_END + "\n")
    if not (begin and end):
        raise SettingsError(f"{PROJECT} has no lines {_BEGIN!r} and {_END!r}: put them back")
    return before + begin + flower_block() + end + after


def _owners() -> Dict[str, List[Entry]]:
    owners: Dict[str, List[Entry]] = {}
    for registry in REGISTRIES:
        for entry in registry:
            for option in entry.options:
                owners.setdefault(option.name, []).append(entry)
    return owners


def _row(option: Option, owners: List[Entry]) -> str:
    kinds = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        Path: "path",
        tuple: "list of texts",
    }
    limits = ", ".join(f"`{choice}`" for choice in option.choices) or option.limits
    cells = [
        f"`{option.name}`",
        kinds.get(option.type, "text"),
        default_text(option),
        limits,
        option.help,
        ", ".join(entry.name for entry in owners),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write both files."""
    (ROOT / PAGE).write_text(settings_page(), "utf-8")
    project = ROOT / PROJECT
    project.write_text(with_block(project.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
