# SPDX-License-Identifier: Apache-2.0
"""A run as a picture: one bar a step on a time axis, kernel and cloud-init's stages before it; light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, LEFT, RIGHT, TOP = 1100, 24, 150, 190, 64
# Plain class selectors: renderers that know no CSS variables (librsvg, Inkscape) still draw the light picture.
STYLE = """
svg { background: #ffffff; font: 13px system-ui, sans-serif; }
text { fill: #1f2328; } .faint { fill: #656d76; } .grid { stroke: #d8dee4; }
.stage { fill: #b6bfc9; } .apt { fill: #bf6b00; } .docker-daemon { fill: #0969da; } .own { fill: #1a7f37; }
.failed { fill: #cf222e; } .skipped { fill: #8c959f; } .critical { stroke: #1f2328; stroke-width: 2; }
.none { fill: none; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } text { fill: #e6edf3; } .faint { fill: #8d96a0; } .grid { stroke: #30363d; }
.stage { fill: #484f58; } .apt { fill: #d29922; } .docker-daemon { fill: #4493f8; } .own { fill: #3fb950; }
.failed { fill: #f85149; } .skipped { fill: #6e7681; } .critical { stroke: #e6edf3; } }
""".strip()
LEGEND = (
    ("apt", "uses apt alone"),
    ("docker-daemon", "uses Docker's daemon alone"),
    ("own", "uses nothing alone"),
    ("failed", "failed"),
    ("stage", "kernel and cloud-init"),
)


@dataclass(frozen=True)
class Bar:
    """One row: seconds since the kernel started, the colour's name, and whether it lies on the critical chain."""

    label: str
    begin: float
    end: float
    colour: str
    note: str = ""
    critical: bool = False


def tick(seconds: float) -> float:
    """Return the step of the axis: 1, 2 or 5 times a power of ten, for 5 to 12 ticks."""
    raw = max(seconds, 0.01) / 8
    size = 10.0 ** math.floor(math.log10(raw))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)


def svg(title: str, bars: Sequence[Bar]) -> str:
    """Return the picture."""
    begin = min((bar.begin for bar in bars), default=0.0)
    end = max((bar.end for bar in bars), default=1.0)
    scale = (WIDTH - LEFT - RIGHT) / max(end - begin, 0.001)
    height = TOP + ROW * len(bars) + 56

    def x(seconds: float) -> float:
        return LEFT + (seconds - begin) * scale

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text x="16" y="26" font-size="16">{escape(title)}</text>',
        *_axis(begin, end, x, height - 40),
    ]
    for number, bar in enumerate(bars):
        parts += _row(bar, x, TOP + number * ROW)
    parts += _legend(height - 14)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axis(begin: float, end: float, x, bottom: float) -> list[str]:  # type: ignore[no-untyped-def]
    step = tick(end - begin)
    at, parts = math.ceil(begin / step) * step, []
    while at <= end:
        parts.append(f'<line class="grid" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        parts.append(f'<text class="faint" x="{x(at):.1f}" y="{TOP - 14}" text-anchor="middle">{at:g} s</text>')
        at += step
    return parts


def _row(bar: Bar, x, top: float) -> list[str]:  # type: ignore[no-untyped-def]
    width = max(1.5, x(bar.end) - x(bar.begin))
    classes = f"{bar.colour} critical" if bar.critical else bar.colour
    took = f"{bar.end - bar.begin:.2f} s{f'  {bar.note}' if bar.note else ''}"
    return [
        f'<text x="{LEFT - 10}" y="{top + 15}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{classes}" x="{x(bar.begin):.1f}" y="{top + 3}" width="{width:.1f}" height="{ROW - 8}" rx="2">'
        f"<title>{escape(bar.label)}: {escape(took)}</title></rect>",
        f'<text class="faint" x="{x(bar.begin) + width + 6:.1f}" y="{top + 15}">{escape(took[:32])}</text>',
    ]


def _legend(y: float) -> list[str]:
    parts, at = [], float(LEFT)
    for colour, words in LEGEND:
        parts.append(f'<rect x="{at}" y="{y - 11}" width="12" height="12" rx="2" class="{colour}"/>')
        parts.append(f'<text class="faint" x="{at + 17}" y="{y}">{escape(words)}</text>')
        at += 30 + 7.0 * len(words)
    parts.append(f'<rect class="none critical" x="{at}" y="{y - 11}" width="12" height="12" rx="2"/>')
    parts.append(f'<text class="faint" x="{at + 17}" y="{y}">critical chain</text>')
    return parts
