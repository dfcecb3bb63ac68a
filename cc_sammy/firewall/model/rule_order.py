# SPDX-License-Identifier: Apache-2.0
"""What differs between the rules that are wanted, in order, and those that are held; for every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def order_differences(where: str, names: Mapping[str, str], held: Sequence[tuple[str, str]]) -> list[str]:
    """Return each rule that is missing, extra or out of order.

    :param names: the wanted rules in order, from comparable form to meaning.
    :param held: the kernel's rules in order, as comparable form and text.
    """
    wanted, keys = list(names), [key for key, _ in held]
    if keys == wanted:
        return []
    problems = [f"{where}: rule missing: {names[key]}" for key in wanted if key not in keys]
    seen: set[str] = set()
    for number, (key, words) in enumerate(held, 1):
        if key not in names or key in seen:
            problems.append(f"{where}: extra rule at place {number}: {words}")
        seen.add(key)
    common = [key for key in wanted if key in seen]
    actual = [key for key in dict.fromkeys(keys) if key in names]
    return problems + [f"{where}: rule out of order: {names[key]}" for key in _displaced(common, actual)]


def _displaced(wanted: list[str], actual: list[str]) -> list[str]:
    import difflib  # late: 14 ms, and only a damaged chain needs it

    blocks = difflib.SequenceMatcher(None, wanted, actual, autojunk=False).get_matching_blocks()
    kept = {key for block in blocks for key in wanted[block.a : block.a + block.size]}
    return [key for key in wanted if key not in kept]
