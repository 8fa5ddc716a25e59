"""The line of methods that no other beats."""

from __future__ import annotations

from xml.etree import ElementTree

from pareto import Dot, dots, frontier, svg


def test_a_method_that_another_beats_in_both_is_not_on_the_line() -> None:
    figures = {"a": (10, 17), "b": (20, 16), "c": (40, 19), "d": (80, 19), "e": (90, None)}
    rows = [
        {"method": name, "figures": {"cost": {"mean": cost}, **({"worth": {"mean": worth}} if worth else {})}}
        for name, (cost, worth) in reversed(figures.items())
    ]
    found = dots({"rows": rows}, "cost", "worth")
    assert [dot.name for dot in found] == ["a", "b", "c", "d"]
    assert [dot.name for dot in frontier(found, 1)] == ["a", "c"]
    assert [dot.name for dot in frontier(found, -1)] == ["a", "b"]

    picture = ElementTree.fromstring(svg(found, 1, "seconds & more", "dB"))
    circles = picture.findall("{*}circle")
    heights = sorted(float(circle.attrib["cy"]) for circle in circles)
    # c and d give the same, more than a, which gives more than b.
    assert len(circles) == 4
    assert heights[0] == heights[1] < heights[2] < heights[3]
    assert ElementTree.fromstring(svg([Dot("alone", 3.0, 1.0)], 1, "s", "dB")) is not None
