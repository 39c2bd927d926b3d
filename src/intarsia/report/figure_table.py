"""The numbers behind a chart, as a table."""

from __future__ import annotations

from typing import Any

from intarsia.report.drawing import category_names, points
from intarsia.report.finding import Cell, Column, Figure, Series, Table
from intarsia.report.format import finite


def data_table(figure: Figure) -> Table:
    """The numbers behind a chart."""
    if figure.kind == "heatmap":
        matrix = figure.matrix or []
        across = max(map(len, matrix), default=0)
        names = [figure.column_names[c] if c < len(figure.column_names) else str(c) for c in range(across)]
        columns = [Column(name=figure.y or "row"), *(Column(name=name, format=figure.format) for name in names)]
        rows = [
            [figure.row_names[r] if r < len(figure.row_names) else str(r), *row, *[None] * (across - len(row))]
            for r, row in enumerate(matrix)
        ]
        return Table(columns=columns, rows=rows)
    if figure.kind == "scatter":
        labelled = any(series.labels for series in figure.series)
        columns = [
            Column(name="series"),
            Column(name=figure.x or "x"),
            Column(name=figure.y or "y", format=figure.format),
        ]
        rows: list[list[Any]] = []
        for series in figure.series:
            for i in points(series):
                label = series.labels[i] if series.labels and i < len(series.labels) else ""
                rows.append([*([label] if labelled else []), series.name, series.x[i], _triple(series, i)])
        return Table(columns=[*([Column(name="point")] if labelled else []), *columns], rows=rows)
    columns = [
        Column(name=figure.x or "x"),
        *(Column(name=s.name or figure.y, format=figure.format) for s in figure.series),
    ]
    named = any(isinstance(x, str) for series in figure.series for x in series.x)
    places = category_names(figure) if named else sorted({x for s in figure.series for x in s.x if finite(x)})
    lookup = [{(str(s.x[i]) if named else s.x[i]): _triple(s, i) for i in points(s)} for s in figure.series]
    return Table(columns=columns, rows=[[place, *(values.get(place) for values in lookup)] for place in places])


def _triple(series: Series, i: int) -> Cell | tuple[float, float, float]:
    low = series.low[i] if series.low and i < len(series.low) else None
    high = series.high[i] if series.high and i < len(series.high) else None
    value = series.y[i]
    return (value, low, high) if finite(value) and finite(low) and finite(high) else value
