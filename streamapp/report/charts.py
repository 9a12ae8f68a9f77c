"""Plots as inline SVG: pure functions of numbers, and nothing that a page would have to fetch.

They are elements, not text: whatever a name holds is escaped when the page is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement

_WIDTH, _BAR, _GAP = 720, 18, 8
_LABELS, _FIGURES = 240, 110  # left of the bars, and right of them
_LETTERS = 34  # of a label, as many as have room
_HEIGHT = 160
_BINS = 24


class Bar(NamedTuple):
    """A bar: what it is of, its value, and the value as text."""

    label: str
    value: Decimal
    text: str


def bar_chart(bars: Sequence[Bar]) -> Element:
    """Return horizontal bars, at least one, from a common zero: to the right what is positive, to the left what is not.

    Of 30 and -10 the zero is a quarter of the way along, and the bars are three quarters and a quarter long.
    """
    values = [float(bar.value) for bar in bars]
    low, high = min(0.0, *values), max(0.0, *values)
    scale = (_WIDTH - _LABELS - _FIGURES) / ((high - low) or 1.0)
    zero = _LABELS - low * scale
    svg = _drawing(len(bars) * (_BAR + _GAP))
    for number, (bar, value) in enumerate(zip(bars, values, strict=True)):
        top = number * (_BAR + _GAP)
        label = bar.label if len(bar.label) <= _LETTERS else f"{bar.label[: _LETTERS - 1]}…"
        _text(svg, _LABELS - 6, top + 13, label, anchor="end")
        left = zero + min(0.0, value) * scale
        _box(svg, (left, top, abs(value) * scale, _BAR), "minus" if value < 0 else "plus")
        _text(svg, zero + max(0.0, value) * scale + 6, top + 13, bar.text)
    return svg


def histogram(values: Sequence[Decimal], unit: str) -> Element:
    """Return how often values, at least one, fall into each equal part of the way from the least to the greatest."""
    numbers = [float(value) for value in values]
    low, high = min(numbers), max(numbers)
    width = (high - low) / _BINS or 1.0
    counts = [0] * _BINS
    for number in numbers:
        counts[min(_BINS - 1, int((number - low) / width))] += 1
    svg = _drawing(_HEIGHT + 24)
    step = _WIDTH / _BINS
    for place, count in enumerate(counts):
        height = _HEIGHT * count / max(counts)
        _box(svg, (place * step, _HEIGHT - height, step - 1, height), "plus")
    _text(svg, 0, _HEIGHT + 16, f"{low:.2f} {unit}")
    _text(svg, _WIDTH, _HEIGHT + 16, f"{high:.2f} {unit}, {len(numbers)} orders", anchor="end")
    return svg


def _drawing(height: int) -> Element:
    return Element("svg", {"viewBox": f"0 0 {_WIDTH} {height}", "role": "img"})


def _box(svg: Element, area: tuple[float, float, float, float], kind: str) -> None:
    places = zip(("x", "y", "width", "height"), area, strict=True)
    SubElement(svg, "rect", {"class": kind, **{name: f"{value:.1f}" for name, value in places}})


def _text(svg: Element, x: float, y: float, text: str, *, anchor: str = "start") -> None:
    SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text
