"""The little HTML a report needs. Text is escaped by type: only what these functions built is not."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any, Iterable, Sequence

from skinfl.files import PathLike


class Html(str):
    """Text that is HTML already. Every other string is data and is escaped on its way into a page."""


STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --faint: #5d646c; --paper: #fff; --line: #d9dde2;
  --shade: #f4f6f8; --warn: #8a5300; --warn-paper: #fff6e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e9; --faint: #a2aab3; --paper: #16181b;
  --line: #373c42; --shade: #1f2226; --warn: #ffce73; --warn-paper: #33280f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead, figcaption, .remark { color: var(--faint); }
.note { border-left: 4px solid var(--warn); background: var(--warn-paper); color: var(--warn);
  padding: .6rem .9rem; max-width: none; font-weight: 600; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th { font-weight: 600; } thead th { background: var(--shade); white-space: nowrap; }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
.text td { overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figure img { width: 100%; max-width: 45rem; height: auto;
  background: #fff; border-radius: 6px; border: 1px solid var(--line); }
figcaption { font-size: .92rem; margin-top: .3rem; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
"""


def page(title: str, parts: Iterable[str]) -> Html:
    """Return a whole page that loads nothing: its policy forbids scripts and any other address."""
    return Html(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{_escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_escaped(title)}</h1>\n" + joined(parts) + "</body>\n</html>\n"
    )


def joined(parts: Iterable[str]) -> Html:
    """Return ``parts`` one after the other."""
    return Html("".join(_escaped(part) for part in parts))


def paragraph(text: str, kind: str = "") -> Html:
    """Return a paragraph; ``kind`` is a class of the style sheet."""
    return Html(f'<p class="{kind}">{_escaped(text)}</p>\n' if kind else f"<p>{_escaped(text)}</p>\n")


def section(title: str, *parts: str) -> Html:
    """Return ``parts`` under a heading."""
    return Html(f"<section>\n<h2>{_escaped(title)}</h2>\n{joined(parts)}</section>\n")


def folded(title: str, *parts: str) -> Html:
    """Return ``parts`` behind a title that opens them."""
    return Html(f"<details>\n<summary>{_escaped(title)}</summary>\n{joined(parts)}</details>\n")


def table(headers: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = "") -> Html:
    """Return a table of numbers, right-aligned but for the first column; ``kind="text"`` aligns left."""
    head = "".join(f'<th scope="col">{_escaped(cell)}</th>' for cell in headers)
    body = "".join("<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    opening = f'<table class="{kind}">' if kind else "<table>"
    return Html(
        f'<div class="scroll">{opening}\n'
        + (f"<thead><tr>{head}</tr></thead>\n" if headers else "")
        + f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def figure(caption: str, path: PathLike) -> Html:
    """Return the PNG at ``path``, embedded."""
    content = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    text = _escaped(caption)
    return Html(
        f'<figure><img alt="{text}" src="data:image/png;base64,{content}">'
        f"<figcaption>{text}</figcaption></figure>\n"
    )


def _escaped(text: Any) -> str:
    return text if isinstance(text, Html) else escape(str(text))
