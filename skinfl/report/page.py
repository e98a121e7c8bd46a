"""The little HTML a report needs. Text is escaped by type: only what these functions built is not."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any, Iterable, Sequence
from urllib.parse import quote

from skinfl.files import PathLike


class Html(str):
    """Text that is HTML already. Every other string is data and is escaped on its way into a page."""


STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --faint: #5d646c; --paper: #fff; --line: #d9dde2;
  --shade: #f4f6f8; --warn: #8a5300; --warn-paper: #fff6e0; --link: #0b57a4;
  --bad: #a3122a; --bad-paper: #fdecee; --good: #0b6338; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e9; --faint: #a2aab3; --paper: #16181b;
  --line: #373c42; --shade: #1f2226; --warn: #ffce73; --warn-paper: #33280f; --link: #8ec1ff;
  --bad: #ff9dab; --bad-paper: #3b191f; --good: #7ddca8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.lead, figcaption, .remark, .faint { color: var(--faint); }
.remark, .faint { font-size: .92rem; }
.finding { font-size: 1.1rem; border-left: 4px solid var(--link); padding-left: .9rem; margin: .8rem 0; }
.note { border-left: 4px solid var(--warn); background: var(--warn-paper); color: var(--warn);
  padding: .6rem .9rem; max-width: none; font-weight: 600; }
.mark { color: var(--bad); background: var(--bad-paper); border-radius: 4px; padding: 0 .35em;
  font-size: .85em; font-weight: 600; white-space: nowrap; }
.right { color: var(--good); font-weight: 600; } .wrong { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th { font-weight: 600; } tbody th { font-weight: 400; min-width: 8rem; position: sticky; left: 0;
  background: var(--paper); } td { white-space: nowrap; } thead th, thead td { background: var(--shade); }
thead th { vertical-align: bottom; }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
.text td { overflow-wrap: anywhere; white-space: normal; }
figure { margin: 1rem 0; } figure img { width: 100%; max-width: 38rem; height: auto;
  background: #fff; border-radius: 6px; border: 1px solid var(--line); }
figcaption { font-size: .92rem; margin-top: .3rem; max-width: 38rem; }
.examples { display: flex; flex-wrap: wrap; gap: .8rem; }
.examples figure { margin: 0; width: 9.1rem; }
.examples img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--shade); }
.examples .small { image-rendering: pixelated; }
.examples figcaption { font-size: .85rem; line-height: 1.35; overflow-wrap: anywhere; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
@media (max-width: 40rem) { body { padding: 1.2rem .9rem 3rem; } th, td { padding: .3rem .5rem; }
  .examples figure { width: calc(33.3% - .55rem); } }
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


def subsection(title: str, *parts: str) -> Html:
    """Return ``parts`` under a heading of a section."""
    return Html(f"<h3>{_escaped(title)}</h3>\n{joined(parts)}")


def table(headers: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = "") -> Html:
    """Return a table of numbers, right-aligned but for the first column; ``kind="text"`` aligns left.

    The first cell of a row is its heading. An empty one among ``headers`` is a corner, which heads nothing.
    """
    head = "".join(f'<th scope="col">{_escaped(cell)}</th>' if str(cell) else "<td></td>" for cell in headers)
    body = "".join(
        "<tr>"
        + "".join(f'<th scope="row">{_escaped(cell)}</th>' for cell in row[:1])
        + "".join(f"<td>{_escaped(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in rows
    )
    opening = f'<table class="{kind}">' if kind else "<table>"
    # What scrolls sideways must be reached with the keyboard as well.
    return Html(
        f'<div class="scroll" tabindex="0">{opening}\n'
        + (f"<thead><tr>{head}</tr></thead>\n" if headers else "")
        + f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def figure(caption: str, path: PathLike, alt: str = "") -> Html:
    """Return the PNG at ``path``, embedded; ``alt`` says what it shows to whom it cannot be shown."""
    source = data_uri(Path(path).read_bytes(), "png")
    return Html(
        f'<figure><img alt="{_escaped(alt or caption)}" src="{source}">'
        f"<figcaption>{_escaped(caption)}</figcaption></figure>\n"
    )


def picture(alt: str, source: Html, caption: str, kind: str = "") -> Html:
    """Return a small picture of many, from its data address; ``kind`` is a class of the style sheet."""
    looks = f' class="{kind}"' if kind else ""
    return Html(
        f'<figure><img{looks} alt="{_escaped(alt)}" src="{source}">'
        f"<figcaption>{_escaped(caption)}</figcaption></figure>\n"
    )


def data_uri(content: bytes, kind: str) -> Html:
    """Return a picture's file as an address that holds it; ``kind`` is ``"png"`` or ``"jpeg"``."""
    return Html(f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}")


def span(text: str, kind: str) -> Html:
    """Return ``text`` in the looks of a class of the style sheet."""
    return Html(f'<span class="{kind}">{_escaped(text)}</span>')


def lines(parts: Iterable[str]) -> Html:
    """Return ``parts`` below one another."""
    return Html("<br>".join(_escaped(part) for part in parts))


def link(text: str, address: str) -> Html:
    """Return a link to a file beside the page."""
    return Html(f'<a href="{escape(quote(address))}">{_escaped(text)}</a>')


def _escaped(text: Any) -> str:
    return text if isinstance(text, Html) else escape(str(text))
