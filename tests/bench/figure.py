"""A figure: what was measured, the floor it was measured against, and what the issue asks for.

Invariant: a target is about the ratio (or, where the issue names a unit, about the value); whether it is met is
reported, never raised. Floor and program take turns within one run, so that a busy machine slows both.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    Attributes:
        value: what the program does, in `unit`.
        floor: the same of the floor or peer named by `against`; None where the target is an absolute value.
        ratio: value to floor, the median of the rounds' ratios; None without a floor.
        relation, target: what the issue asks of the ratio (of the value where there is no floor); None = reported only.
        aim: the better number the issue names beside the target.
    """

    name: str
    value: float
    unit: str
    against: str = ""
    floor: float | None = None
    ratio: float | None = None
    relation: str = "<="
    target: float | None = None
    aim: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        judged = self.value if self.ratio is None else self.ratio
        return None if self.target is None else COMPARE[self.relation](judged, self.target)

    def row(self) -> tuple[str, ...]:
        """The figure as the table's cells."""
        wanted = "" if self.target is None else f"{self.relation} {self.target:g}{'' if self.ratio is None else 'x'}"
        if self.aim is not None:
            wanted += f" (aim {self.aim:g}x)"
        return (
            self.name,
            f"{number(self.value)} {self.unit}",
            "" if self.floor is None else f"{number(self.floor)} {self.unit}",
            "" if self.ratio is None else f"{self.ratio:.2f}x",
            wanted,
            {None: "", True: "met", False: "NOT MET"}[self.met],
            self.against,
        )

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


HEAD = ("figure", "program", "floor", "ratio", "target", "", "floor is")


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text."""
    rows = [HEAD, *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the turns of a measurement gave: the program's numbers and the floor's, round by round."""

    program: tuple[float, ...]
    floor: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return median(mine / other for mine, other in zip(self.program, self.floor, strict=True))

    def figure(self, name: str, unit: str, against: str, relation: str, target: float | None, aim: float | None = None) -> Figure:
        return Figure(name, median(self.program), unit, against, median(self.floor), self.ratio, relation, target, aim)


async def alternate(floor: Callable[[], Awaitable[float]], program: Callable[[], Awaitable[float]], rounds: int) -> Rounds:
    """Measure floor and program in turns: A B B A A B …, so that each is met as often by what the other leaves running; one turn of
    each beforehand warms what can be warmed."""
    await floor()
    await program()
    mine: list[float] = []
    others: list[float] = []
    order = ((floor, others), (program, mine))
    for turn in range(rounds):
        for measure, found in order if turn % 2 == 0 else order[::-1]:
            found.append(await measure())
    return Rounds(tuple(mine), tuple(others))


def load() -> str:
    """How busy the machine is, for the head of a report."""
    return f"{os.cpu_count()} cores, load {' '.join(f'{each:.1f}' for each in os.getloadavg())}"
