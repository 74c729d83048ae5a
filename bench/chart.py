"""Bars as SVG: a title, and a line for each figure."""

from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES = 770, 300, 60  # in all; left and right of the bars
LINE, BAR, TOP = 26, 16, 52

# One grey and one blue that can be read on white and on black alike: whether a
# page that shows the picture is light or dark, the picture can't know.
GREY, BLUE = "#797979", "#3b82f6"

STYLE = f"""
text {{ font: 13px system-ui, sans-serif; fill: {GREY} }}
.title {{ font-size: 15px; font-weight: 600 }}
.ours {{ fill: {BLUE}; font-weight: 600 }}
.other {{ fill: {GREY} }}
.floor {{ fill: none; stroke: {GREY}; stroke-dasharray: 3 2 }}
"""


class Bar(NamedTuple):
    label: str
    value: float
    text: str    # the value, as it is to be read
    kind: str    # "ours", "other", or "floor", which nobody can beat


def bars(title, subtitle, lines):
    """Return the picture."""
    longest = max(bar.value for bar in lines)
    height = TOP + LINE * len(lines) + 6
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
             f' height="{height}" role="img" aria-label="{escape(title)}">',
             f"<style>{STYLE}</style>",
             f'<text class="title" x="8" y="20">{escape(title)}</text>',
             f'<text x="8" y="39">{escape(subtitle)}</text>']
    for number, bar in enumerate(lines):
        y = TOP + LINE * number
        width = max(1, (WIDTH - LABELS - VALUES) * bar.value / longest)
        emphasis = ' class="ours"' if bar.kind == "ours" else ""
        parts += [f'<text{emphasis} x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(bar.label)}</text>',
                  f'<rect class="{bar.kind}" x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>',
                  f'<text{emphasis} x="{LABELS + width + 6:.1f}" y="{y + 13}">{escape(bar.text)}</text>']
    return "\n".join(parts + ["</svg>", ""])
