"""Legends below the panels."""

import pytest

from experiments.plots import legend_below, panels

LONG = "FNO of neuraloperator, its defaults + channels"


@pytest.mark.parametrize(
    ("labels", "columns"), [(["FNO", "BOON", "truth"], 3), ([LONG, LONG + ", 1", LONG + ", 2"], 1)]
)
def test_a_legend_has_as_many_columns_as_fit_the_figure(labels: list[str], columns: int) -> None:
    figure, (panel, _) = panels(2, "title")
    for label in labels:
        panel.plot([0, 1], label=label)
    legend_below(figure, panel)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().width <= figure.bbox.width
    assert len({round(text.get_window_extent().x0) for text in legend.get_texts()}) == columns
    assert [text.get_text() for text in legend.get_texts()] == labels
