# SPDX-License-Identifier: Apache-2.0
"""A benchmark's figures, each beside the bar it is held to: one table, one JSON form, one exit status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cc_sammy.common.text_table import table


@dataclass(frozen=True)
class Figure:
    """One figure; without a bar it is only told."""

    name: str
    unit: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        under = self.at_most is None or self.value <= self.at_most
        return under and (self.at_least is None or self.value >= self.at_least)

    @property
    def bar(self) -> str:
        """The bar in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else "-"


def report(figures: Sequence[Figure], *, as_json: bool) -> int:
    """Print the figures; return the exit status, 1 when a bar is missed."""
    if as_json:
        print(json.dumps([{**asdict(figure), "met": figure.met} for figure in figures], indent=1))
    else:
        rows = [("FIGURE", "VALUE", "UNIT", "BAR", "")]
        rows += [
            (figure.name, f"{figure.value:.2f}", figure.unit, figure.bar, "" if figure.met else "MISSED")
            for figure in figures
        ]
        print("\n".join(table(rows, right=(1,))))
    return 0 if all(figure.met for figure in figures) else 1
