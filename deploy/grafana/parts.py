"""What dashboards are made of here: panels of five kinds, variables, annotations; each panel says what it shows.

A panel is never without title, description, unit and data source. Widths are in Grafana's 24 columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal, TypeAlias

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_options
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
STAT_WIDTH: Final = 4
CHART_WIDTH: Final = 8

GREEN: Final = "green"
ORANGE: Final = "orange"
RED: Final = "red"

Steps: TypeAlias = Sequence[tuple[float, str]]
"""From which value on which colour is shown; below the first it is green."""

Panel: TypeAlias = Builder[model.Panel]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and how its series are called: text with `{{label}}` in it."""

    expression: str
    legend: str = ""


def show_numbers(
    title: str, description: str, unit: str, query: Query, *, steps: Steps = (), decimals: int | None = None
) -> Panel:
    """A big number for each series, as it stands now, with its course behind it."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(4)
        .span(STAT_WIDTH)
        .thresholds(_thresholds(steps))
        .color_scheme(builders.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .graph_mode(options.BigValueGraphMode.AREA)
        .reduce_options(_last())
        .targets(_targets([query]))
    )
    return panel if decimals is None else panel.decimals(decimals)


def show_course(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    limit: float | None = None,
    top: float | None = None,
    width: int = CHART_WIDTH,
) -> Panel:
    """Lines over time; stacked where they are parts of one whole, which is shown from 0, up to `top` at least.

    A dashed red line stands at `limit`.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(8)
        .span(width)
        .line_width(1)
        .fill_opacity(25 if stacked else 5)
        .show_points(options.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .targets(_targets(queries))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL)).axis_soft_min(0)
    if top is not None:
        panel = panel.axis_soft_min(0).axis_soft_max(top)
    if limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds([(limit, RED)])).thresholds_style(style)
    return panel


def show_bars(title: str, description: str, unit: str, query: Query, *, steps: Steps = ()) -> Panel:
    """A bar for each series, as it stands now."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(8)
        .span(CHART_WIDTH)
        .min(0)
        .thresholds(_thresholds(steps))
        .color_scheme(builders.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .reduce_options(_last())
        .targets(_targets([query]))
    )


def show_table(title: str, description: str, unit: str, query: Query, *, columns: dict[str, str]) -> Panel:
    """A row for each series, as it stands now: the labels named in `columns`, under the names given there.

    `Value` names the number; where it is missing, the number only says that the row is there, and is left out.
    """
    hidden = {name: True for name in ("Time", "Value", "__name__", "job") if name not in columns}
    order = {name: index for index, name in enumerate(columns)}
    organised = model.DataTransformerConfig(
        id_val="organize",
        options={"excludeByName": hidden, "indexByName": order, "renameByName": columns},
    )
    target = _target(query).instant().format(PromQueryFormat.TABLE).ref_id("A")
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(8)
        .span(CHART_WIDTH)
        .targets([target])
        .with_transformation(organised)
    )


def show_heat(title: str, description: str, unit: str, query: Query) -> Panel:
    """How many values fell between two bounds of a histogram, over time: the query gives the buckets' rates by `le`."""
    target = _target(query).range().format(PromQueryFormat.HEATMAP).ref_id("A")
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .height(8)
        .span(CHART_WIDTH)
        .calculate(calculate=False)
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(options.AxisPlacement.LEFT))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_options.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap_options.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .cell_gap(1)
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_values(heatmap.CellValues().unit("ops"))
        .targets([target])
    )


def _targets(queries: Sequence[Query]) -> list[Builder[Any]]:
    return [_target(query).range().ref_id(chr(ord("A") + index)) for index, query in enumerate(queries)]


def _target(query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expression).legend_format(query.legend).datasource(DATASOURCE)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(show_legend=True)
        .display_mode(options.LegendDisplayMode.LIST)
        .placement(options.LegendPlacement.BOTTOM)
    )


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    lowest = model.Threshold(value=None, color=GREEN)
    higher = [model.Threshold(value=value, color=color) for value, color in steps]
    return builders.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps([lowest, *higher])


class _PrometheusAnnotation(model.AnnotationQuery):
    """An annotation of Prometheus' plugin, whose own fields the schema does not know."""

    def __init__(self, *, text: str, value_is_time: bool, **given: Any) -> None:  # noqa: ANN401 - passed on as given
        super().__init__(**given)
        self._text = text
        self._value_is_time = value_is_time

    def to_json(self) -> dict[str, object]:
        """Add the plugin's fields."""
        own = {"titleFormat": self.name, "textFormat": self._text, "step": "15s"}
        return super().to_json() | own | {"useValueForTime": "on" if self._value_is_time else False}


@dataclass(frozen=True, slots=True)
class Annotation(Builder[model.AnnotationQuery]):
    """Marks on every chart: where the expression has series, or at the times that are its values, in milliseconds."""

    name: str
    expression: str
    text: str
    color: str
    value_is_time: bool = False

    def build(self) -> model.AnnotationQuery:
        """Write it in the schema's terms."""
        return _PrometheusAnnotation(
            text=self.text,
            value_is_time=self.value_is_time,
            name=self.name,
            datasource=DATASOURCE,
            enable=True,
            icon_color=self.color,
            expr=self.expression,
        )


def make_dashboard(
    title: str,
    description: str,
    *,
    labels_of: str,
    rows: Sequence[tuple[str, Sequence[Panel]]],
    annotations: Sequence[Annotation] = (),
) -> builders.Dashboard:
    """A dashboard of rows of panels, with the variables that all of ours have.

    Args:
        title: its name, also its stable identifier.
        description: what it answers, in a sentence.
        labels_of: the metric whose labels job, instance and model may be chosen from.
        rows: the heading and the panels of each.
        annotations: marks on its charts.
    """
    dashboard = (
        builders.Dashboard(f"Quicksilver: {title}")
        .uid(f"quicksilver-{title.lower()}")
        .description(description)
        .tags(["quicksilver"])
        .time("now-1h", "now")
        .refresh("15s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables(_variables(labels_of))
        .annotations(list(annotations))
        .link(_siblings())
    )
    numbers = count(1)
    for heading, panels in rows:
        dashboard = dashboard.with_row(builders.Row(heading).id(next(numbers)))
        for panel in panels:
            dashboard = dashboard.with_panel(_Numbered(panel, next(numbers)))
    return dashboard


@dataclass(frozen=True, slots=True)
class _Numbered(Builder[model.Panel]):
    """A panel with the number that links to it name."""

    panel: Panel
    number: int

    def build(self) -> model.Panel:
        built = self.panel.build()
        built.id_val = self.number
        return built


def _siblings() -> builders.DashboardLink:
    link = builders.DashboardLink("Quicksilver").type(model.DashboardLinkType.DASHBOARDS).tags(["quicksilver"])
    return link.as_dropdown(as_dropdown=False).include_vars(include_vars=True).keep_time(keep_time=True)


def _variables(labels_of: str) -> list[Builder[model.VariableModel]]:
    datasource = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    chosen: list[Builder[model.VariableModel]] = [
        # all jobs are those that there are of ours; `up` and `process_*` are of others' too
        _variable("job", f"label_values({labels_of}, job)"),
        _variable("instance", f'label_values({labels_of}{{job=~"$job"}}, instance)').all_value(".*"),
        _variable("model", f'label_values({labels_of}{{job=~"$job"}}, model)').all_value(".*"),
    ]
    return [datasource, *chosen]


def _variable(name: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(name.title())
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(model.VariableOption(text=["All"], value=["$__all"]))
    )


# Expressions ----------------------------------------------------------------------------------------------------------

SERVER: Final = 'job=~"$job", instance=~"$instance"'
"""Matchers of every metric of a server."""
MODEL: Final = f'{SERVER}, model=~"$model"'
"""Matchers of those that know of models."""


def rate_of(counter: str, by: str, *, matchers: str = MODEL) -> str:
    """How fast a counter grows, a second, by some labels; by none, written as an empty text, of all together."""
    return f"{_sum(by)} (rate({counter}{{{matchers}}}[$__rate_interval]))"


def quantile_of(histogram: str, quantile: float, by: str = "", *, matchers: str = MODEL) -> str:
    """A quantile of what a histogram saw of late, by some labels."""
    buckets = rate_of(f"{histogram}_bucket", f"le, {by}" if by else "le", matchers=matchers)
    return f"histogram_quantile({quantile}, {buckets})"


def mean_of(histogram: str, by: str, *, matchers: str = MODEL) -> str:
    """The mean of what a histogram saw of late, by some labels."""
    return (
        f"{rate_of(histogram + '_sum', by, matchers=matchers)} / {rate_of(histogram + '_count', by, matchers=matchers)}"
    )


def gauge_of(gauge: str, by: str, *, of: Literal["sum", "max", "min"] = "max", matchers: str = MODEL) -> str:
    """What several servers' gauges are together."""
    return f"{of} by ({by}) ({gauge}{{{matchers}}})" if by else f"{of} ({gauge}{{{matchers}}})"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"


Quantiles: TypeAlias = Callable[[float], str]


def quantiles(expression: Quantiles, legend: str = "") -> list[Query]:
    """The median, and what one call in ten and one in a hundred exceed."""
    return [Query(expression(q), f"p{round(q * 100)} {legend}".strip()) for q in (0.5, 0.9, 0.99)]
