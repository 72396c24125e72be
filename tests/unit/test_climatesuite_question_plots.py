"""Figures of answers hold what the rows say."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from climatesuite.evaluate.answers import beside, row
from climatesuite.evaluate.blame import FAILS, FOLLOWS, PASSES, attribute, graph_of
from climatesuite.evaluate.plots import png
from climatesuite.evaluate.question_plots import COLOURS, blame_figure, images, interval_chart, reliability_diagram


def test_an_interval_chart_has_a_line_a_row_and_leaves_out_what_has_no_value():
    rows = [
        beside((np.arange(2030.0, 2041.0), np.array([2034.0, 2036.0])), name=n, region="globe", units="year")
        for n in "ab"
    ]
    axes = interval_chart([*rows, row(name="c", units="year")], "Crossing years")
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a, globe", "b, globe"]
    spans = sorted({tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2})
    assert spans == [(2030.5, 2039.5), (2034.0, 2036.0)]
    assert len(png(axes)) > 3000


def test_rows_of_several_units_do_not_share_an_axis():
    with pytest.raises(ValueError, match="K, year"):
        interval_chart([row(units="K", value=1.0), row(units="year", value=2.0)], "t")


def test_a_reliability_diagram_draws_only_what_was_forecast():
    axes = reliability_diagram({"tas": (np.array([0.5, 0.0, 0.5]), np.array([0.1, np.nan, 0.9]))}, "t")
    drawn = axes.lines[1]
    np.testing.assert_allclose(drawn.get_xdata(), [0.0, 1.0])
    np.testing.assert_allclose(drawn.get_ydata(), [0.1, 0.9])


def test_the_graph_colours_where_failures_begin_and_what_follows():
    graph = graph_of(["tas", "pr"], True)
    status = attribute(graph, {"tas trend", "warming ratios"})
    axes = blame_figure([row(name=n) | {"status": word, "cause": list(c)} for n, (word, c) in status.items()], "t")
    colours = {t.get_text().replace("\n", " "): t.get_bbox_patch().get_facecolor() for t in axes.texts if t.get_text()}
    assert set(colours) == set(graph)

    assert colours["tas trend"] == to_rgba(COLOURS[FAILS]) and colours["warming ratios"] == to_rgba(COLOURS[FOLLOWS])
    assert colours["pr trend"] == to_rgba(COLOURS[PASSES])
    assert len(png(axes)) > 3000


def test_images_of_a_report_come_by_title_and_model_and_a_reason_has_none():
    years = [
        beside(
            (np.arange(2030.0, 2041.0), np.array([2034.0])), question="warming levels", name="2 K crossed", units="year"
        )
    ]
    blamed = [row(question="blame", name=n) | {"status": PASSES, "cause": []} for n in graph_of(["tas"], True)]
    found = images(
        {"levels": {"A": years, "B": "too few years"}, "begin": {"A": blamed}, "regions": {"A": [row(question="tail")]}}
    )
    assert [len(drawn) for drawn in found.values()] == [1, 1, 0]
    image, caption = found["levels"][0]
    assert image.startswith(b"\x89PNG") and caption.startswith("A: warming levels")
