"""Pieces of a self-contained HTML page: text, tables that scroll in their own box, figures inside the file."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

MISSING = "–"
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1rem 3rem; background: #fff; color: #1c1c1c;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; padding-top: .4rem; border-top: 2px solid #1c1c1c; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: #00508a; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .6rem 0; list-style: none; }
.sub, .cap, figcaption, small { color: #4a4a4a; }
.box { border: 1px solid #c4c4c4; border-left-width: 6px; padding: .3rem .9rem .6rem; margin: .9rem 0; }
.fail { border-left-color: #b3261e; } .warn { border-left-color: #b36b00; } .pass { border-left-color: #1b6e3c; }
.bad { color: #b3261e; font-weight: 700; } .good { color: #1b6e3c; font-weight: 700; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
.cap { font-size: .875rem; line-height: 1.4; }
th, td { padding: .3rem .65rem; text-align: right; vertical-align: top; border-bottom: 1px solid #dcdcdc;
  white-space: nowrap; overflow-wrap: normal; }
thead th { border-bottom: 2px solid #1c1c1c; vertical-align: bottom; }
th:first-child, td:first-child, .text { text-align: left; }
th:first-child { position: sticky; left: 0; background: #fff; }
td.text { white-space: normal; min-width: 12.5rem; }
td small { display: block; font-size: .78rem; }
tr.top td, tr.top th { border-top: 2px solid #8a8a8a; }
.figures { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; } figure img { width: 100%; max-width: 34rem; height: auto; display: block; }
figcaption { font-size: .85rem; line-height: 1.4; margin-top: .25rem; }
pre { overflow-x: auto; background: #f4f4f4; padding: .6rem .8rem; font-size: .85rem; overflow-wrap: normal; }
details > summary { cursor: pointer; padding: .3rem 0; }
.box ul { padding-left: 1.1rem; margin: .3rem 0; }
@media (max-width: 40rem) { th:first-child, td:first-child { white-space: normal; min-width: 6rem; max-width: 9rem; } }
@media print { .scroll { overflow: visible; } body { max-width: none; } figure, table { break-inside: avoid; } }
"""


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def text(value: Any) -> Markup:
    """Escaped text; Markup stays, None becomes a dash."""
    if isinstance(value, Markup):
        return value
    return Markup(MISSING if value is None else escape(str(value)))


def join(parts: Iterable[str], between: str = "\n") -> Markup:
    """Pieces of markup as one."""
    return Markup(between.join(parts))


def tag(name: str, content: Any, **attributes: Any) -> Markup:
    """An element; ``class_`` is written class, ``aria_label`` aria-label; attributes that are None are left out."""
    written = "".join(
        f' {k.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for k, v in attributes.items() if v is not None
    )
    return Markup(f"<{name}{written}>{text(content)}</{name}>")


def number(value: Any, digits: int = 3) -> str:
    """A number with ``digits`` decimals, fewer for large ones, a true minus sign; a dash for None and NaN.

    Values below half of the last decimal are written with two significant digits.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return MISSING if value is None or isinstance(value, float) else str(value)
    if isinstance(value, int):
        return str(value).replace("-", "−")
    size = abs(value)
    shown = f"{value:.2g}" if 0 < size < 0.5 * 10.0**-digits else f"{value:.{digits if size < 100 else 1}f}"
    return shown.replace("-", "−") if float(shown) != 0 else shown.replace("-", "")


def unit(units: Any) -> Markup:
    """A unit as it is set in print: ``mm day-1`` with a raised -1."""
    if units is None:
        return Markup(MISSING)
    return Markup(re.sub(r"(?<=[A-Za-z])-?\d+\b", lambda m: f"<sup>{m[0].replace('-', '−')}</sup>", escape(str(units))))


def table(
    head: Sequence[Any], body: Iterable[Sequence[Any]], *, caption: Any = None, classes: Mapping[int, str] | None = None,
    tops: Iterable[int] = (),
) -> Markup:  # fmt: skip
    """A table in a box that scrolls sideways by itself.

    Args:
        head: Column names.
        body: Rows of cells; the first cell of each is its heading.
        caption: Above the table.
        classes: CSS class by column.
        tops: Numbers of rows that begin a new group.
    """
    css, first = classes or {}, set(tops)
    columns = join((tag("th", cell, scope="col", class_=css.get(i)) for i, cell in enumerate(head)), "")
    lines = []
    for i, row in enumerate(body):
        cells = [tag("th", row[0], scope="row")] + [tag("td", c, class_=css.get(j)) for j, c in enumerate(row[1:], 1)]
        lines.append(tag("tr", join(cells, ""), class_="top" if i in first else None))
    whole = tag("table", join([tag("thead", tag("tr", columns)), tag("tbody", join(lines))]))
    box = tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label="table")
    # outside the box: a caption inside would be as wide as the table and scroll away with it
    return box if caption is None else join([tag("p", caption, class_="cap"), box])


def figure(image: bytes, alt: str, caption: Any) -> Markup:
    """A PNG inside the page with its caption."""
    data = base64.b64encode(image).decode("ascii")
    return tag(
        "figure", join([f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">', tag("figcaption", caption)])
    )


def page(title: str, sections: Sequence[tuple[str, str, Markup]], lead: Markup) -> str:
    """The whole document.

    Args:
        title: Title and first heading.
        sections: Anchor, heading and content of each; linked at the top.
        lead: What stands between title and first section.
    """
    links = join(tag("li", tag("a", heading, href=f"#{anchor}")) for anchor, heading, _ in sections)
    parts = [join([tag("h2", heading, id=anchor), content]) for anchor, heading, content in sections]
    body = join([tag("h1", title), lead, tag("nav", tag("ul", links), aria_label="sections"), *parts])
    return "\n".join(
        [
            "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">', tag("title", title),
            f"<style>{STYLE}</style>", "</head>", tag("body", body), "</html>", "",
        ]
    )  # fmt: skip
