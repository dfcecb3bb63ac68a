# SPDX-License-Identifier: Apache-2.0
"""A run as a picture (SVG): one bar a step on a time axis, kernel and cloud-init's stages before it; light and dark.

What made the run as long as it was is solid and joined by a line; what had time to spare is pale, with a thread as long
as that time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, LEFT, RIGHT, TOP, BAR = 1100, 26, 162, 150, 104, 14
MARGIN = 24
LETTER = 6.8  # the mean width of a small letter
# Classes alone: renderers that know no CSS variables (librsvg, Inkscape) still draw the light picture.
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-size: 19px; font-weight: 600; } .strong { font-weight: 600; }
.faint { fill: #59636e; } .small { font-size: 11.5px; }
.paper { fill: #ffffff; } .band { fill: #f6f8fa; } .grid { stroke: #d1d9e0; } .edge { stroke: #818b98; }
.stage { fill: #aeb7c1; } .apt { fill: #bc6c00; } .docker-daemon { fill: #0969da; } .own { fill: #1a7f37; }
.failed { fill: #cf222e; } .skipped { fill: #818b98; } .pale { opacity: .5; }
.chain { stroke: #1f2328; fill: none; stroke-width: 1.5; } .slack { stroke: #c2cad2; stroke-width: 1.5; fill: none; }
.wrong { fill: #cf222e; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .faint { fill: #9198a1; } .paper { fill: #0d1117; } .band { fill: #151b23; }
.grid { stroke: #30363d; } .edge { stroke: #656c76; } .stage { fill: #59636e; } .apt { fill: #e3a32b; }
.docker-daemon { fill: #4493f8; } .own { fill: #3fb950; } .failed { fill: #f85149; } .skipped { fill: #656c76; }
.chain { stroke: #f0f6fc; } .slack { stroke: #484f58; } .wrong { fill: #ff7b72; }
}
""".strip()
LEGEND = (
    ("stage", "before the steps"),
    ("apt", "uses apt alone"),
    ("docker-daemon", "uses Docker alone"),
    ("own", "shares everything"),
    ("failed", "failed"),
    ("skipped", "nothing to do"),
)
X = Callable[[float], float]


@dataclass(frozen=True)
class Bar:
    """One row: seconds since the kernel started, and the colour's name.

    :param critical: it lies on the chain that made the run as long as it was.
    :param slack: seconds that it might have taken longer without making the run longer.
    """

    label: str
    begin: float
    end: float
    colour: str
    note: str = ""
    critical: bool = False
    slack: float = 0.0


def tick(seconds: float) -> float:
    """Return the step of the axis: 1, 2 or 5 times a power of ten, for 5 to 12 ticks."""
    raw = max(seconds, 0.01) / 8
    size = 10.0 ** math.floor(math.log10(raw))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)


def shown(seconds: float) -> str:
    """Return a duration as one says it: 17.5 s, 1.45 s, 116 ms."""
    if seconds >= 1:
        return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"
    return f"{seconds * 1000:.0f} ms"


def svg(title: str, subtitle: str, bars: Sequence[Bar]) -> str:
    """Return the picture; its time begins with the first bar."""
    begin = min((bar.begin for bar in bars), default=0.0)
    seconds = max(max((bar.end for bar in bars), default=1.0) - begin, 0.001)
    bottom = TOP + ROW * len(bars)
    height = bottom + 64

    def x(at: float) -> float:
        return LEFT + (at - begin) * (WIDTH - LEFT - RIGHT) / seconds

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(f"{title}. {subtitle}")}">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{MARGIN}" y="36">{escape(title)}</text>',
        f'<text class="faint" x="{MARGIN}" y="58">{escape(subtitle)}</text>',
        *(_band(TOP + ROW * number) for number in range(0, len(bars), 2)),
        *_axis(begin, seconds, x, bottom),
    ]
    for number, bar in enumerate(bars):
        parts += _row(bar, x, TOP + number * ROW)
    parts += [*_chain(bars, x), *_legend(bars, bottom + 38)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _band(top: float) -> str:
    return f'<rect class="band" x="{MARGIN}" y="{top}" width="{WIDTH - 2 * MARGIN}" height="{ROW}" rx="3"/>'


def _axis(begin: float, seconds: float, x: X, bottom: float) -> list[str]:
    step = tick(seconds)
    parts = []
    for number in range(math.floor(seconds / step + 1e-9) + 1):
        at = x(begin + number * step)
        kind = "grid" if number else "edge"
        parts.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        words = f"{number * step:.10g}{' s' if number == 0 else ''}"
        parts.append(f'<text class="faint small" x="{at:.1f}" y="{TOP - 14}" text-anchor="middle">{words}</text>')
    return parts


def _chain(bars: Sequence[Bar], x: X) -> list[str]:
    """Join what made the run as long as it was, each bar's end with the next one's begin."""
    rows = [(number, bar) for number, bar in enumerate(bars) if bar.critical]
    return [
        f'<path class="chain" d="M{x(one.end):.1f} {_middle(row):.1f} V{_middle(below):.1f} H{x(other.begin):.1f}"/>'
        for (row, one), (below, other) in itertools.pairwise(rows)
    ]


def _middle(row: int) -> float:
    return TOP + row * ROW + ROW / 2


def _row(bar: Bar, x: X, top: float) -> list[str]:
    left, width = x(bar.begin), max(2.0, x(bar.end) - x(bar.begin))
    middle, took = top + ROW / 2, shown(bar.end - bar.begin)
    pale = not bar.critical and bar.colour not in ("failed", "stage")
    place = f'x="{left:.1f}" y="{middle - BAR / 2}" width="{width:.1f}" height="{BAR}" rx="2.5"'
    said = [took, *filter(None, (bar.note, f"{shown(bar.slack)} to spare" if bar.slack else ""))]
    parts = [
        f'<text class="{"strong" if bar.critical else "plain"}" x="{LEFT - 12}" y="{middle + 4.5}" text-anchor="end">'
        f"{escape(bar.label)}</text>",
        *([f'<rect class="paper" {place}/>'] if pale else []),  # the grid does not shine through
        f'<rect class="{bar.colour}{" pale" if pale else ""}" {place}>'
        f"<title>{escape(f'{bar.label}: ' + ', '.join(said))}</title></rect>",
    ]
    words = f"{took}, {bar.note}" if bar.note else took
    kind = "wrong" if bar.colour == "failed" else "faint"
    length = LETTER * len(words)
    if left + width + 8 + length > WIDTH - MARGIN and length + 8 < left - LEFT:
        at, anchor, free = left - 8, "end", left + width + 4
    else:
        at, anchor, free = left + width + 8, "start", left + width + 14 + length
    parts.append(
        f'<text class="{kind} small" x="{at:.1f}" y="{middle + 4}" text-anchor="{anchor}">{escape(words)}</text>'
    )
    until = x(bar.end + bar.slack)
    if bar.slack > 0 and until > free + 6:
        parts.append(f'<path class="slack" d="M{free:.1f} {middle} H{until:.1f} m0 -4 v8"/>')
    return parts


def _legend(bars: Sequence[Bar], y: float) -> list[str]:
    """Explain what is in the picture, and no more."""
    there = {bar.colour for bar in bars}
    signs = [
        (words, f'<rect x="{{x}}" y="{y - 10}" width="12" height="12" rx="2.5" class="{colour}"/>')
        for colour, words in LEGEND
        if colour in there
    ]
    if any(bar.critical for bar in bars):
        signs.append(("solid: the critical chain", f'<path class="chain" d="M{{x}} {y - 9} h6 v10 h6"/>'))
    if any(bar.slack for bar in bars):
        signs.append(("time to spare", f'<path class="slack" d="M{{x}} {y - 4} h12 m0 -4 v8"/>'))
    parts, at = [], float(MARGIN)
    for words, sign in signs:
        parts.append(sign.replace("{x}", f"{at:.0f}"))
        parts.append(f'<text class="faint small" x="{at + 18:.0f}" y="{y}">{escape(words)}</text>')
        at += 40 + 6.0 * len(words)
    return parts
