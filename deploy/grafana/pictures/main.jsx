// Draws one dashboard from what Prometheus answered (window.DRAWN), with the components that Grafana draws with.
import { createElement as h } from "react";
import { createRoot } from "react-dom/client";
import {
  createTheme,
  FieldColorModeId,
  FieldType,
  getDisplayProcessor,
  ThresholdsMode,
  toDataFrame,
} from "@grafana/data";
import {
  BarGauge,
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  PanelChrome,
  Table,
  TimeSeries,
} from "@grafana/ui";

const theme = createTheme();
const CELL = { width: 56, height: 34 };
const GAP = 8;

const { title, from, to, panels } = window.DRAWN;

function fieldConfig(panel, name) {
  const custom = panel.fieldConfig.defaults.custom ?? {};
  const color = { mode: FieldColorModeId.PaletteClassic };
  return {
    ...panel.fieldConfig.defaults,
    displayName: name,
    color: panel.type === "timeseries" ? color : panel.fieldConfig.defaults.color,
    custom: { drawStyle: "line", lineInterpolation: "linear", showPoints: "never", spanNulls: true, ...custom },
  };
}

function frames(panel) {
  return panel.series.map((one, index) => {
    const frame = toDataFrame({
      name: one.name,
      fields: [
        { name: "Time", type: FieldType.time, values: one.times, config: {} },
        { name: one.name, type: FieldType.number, values: one.values, config: fieldConfig(panel, one.name) },
      ],
    });
    frame.fields[1].state = { seriesIndex: index };
    for (const field of frame.fields) {
      field.display = getDisplayProcessor({ field, theme });
    }
    return frame;
  });
}

function Course({ panel, width, height }) {
  return h(TimeSeries, {
    frames: frames(panel),
    timeRange: { from: { valueOf: () => from, toISOString: () => "" }, to: { valueOf: () => to }, raw: {} },
    timeZone: "utc",
    width,
    height,
    legend: { showLegend: true, displayMode: "list", placement: "bottom", calcs: [] },
  });
}

function values(panel) {
  return frames(panel).map((frame) => {
    const field = frame.fields[1];
    const last = field.values.filter((value) => value !== null).at(-1);
    return { shown: { ...field.display(last), title: field.config.displayName }, frame, field };
  });
}

function Numbers({ panel, width, height }) {
  const all = values(panel);
  return all.map(({ shown, frame, field }) =>
    h(BigValue, {
      key: shown.title,
      value: all.length > 1 ? shown : { ...shown, title: undefined },
      width: width / all.length,
      height,
      theme,
      colorMode: BigValueColorMode.Value,
      graphMode: BigValueGraphMode.Area,
      sparkline: { x: frame.fields[0], y: field },
    }),
  );
}

function Bars({ panel, width, height }) {
  const all = values(panel);
  const highest = Math.max(...all.map(({ shown }) => shown.numeric), 1e-12);
  const each = Math.min(60, (height - 8) / all.length);
  return all.map(({ shown, field }) =>
    h(BarGauge, {
      key: shown.title,
      value: shown,
      field: { ...field.config, min: 0, max: highest, thresholds: field.config.thresholds ?? { mode: ThresholdsMode.Absolute, steps: [] } },
      display: field.display,
      width,
      height: each,
      theme,
      orientation: "horizontal",
      displayMode: "basic",
      itemSpacing: 4,
    }),
  );
}

function Rows({ panel, width, height }) {
  const frame = toDataFrame({
    fields: panel.columns.map((name, index) => ({
      name,
      type: FieldType.string,
      values: panel.rows.map((row) => row[index]),
      config: { custom: {} },
    })),
  });
  for (const field of frame.fields) {
    field.display = getDisplayProcessor({ field, theme });
  }
  return h(Table, { data: frame, width, height });
}

const KINDS = { timeseries: Course, stat: Numbers, bargauge: Bars, table: Rows };

function Panel({ panel }) {
  const { x, y, w, h: rows } = panel.gridPos;
  const width = w * CELL.width - GAP;
  const height = rows * CELL.height - GAP;
  const style = { position: "absolute", left: x * CELL.width, top: y * CELL.height + 48, width, height };
  if (panel.type === "row") {
    return h("div", { style: { ...style, fontWeight: 500, paddingTop: 6 } }, `⌄ ${panel.title}`);
  }
  const kind = KINDS[panel.type];
  const inside = (innerWidth, innerHeight) =>
    kind && (panel.series?.length || panel.rows?.length)
      ? h("div", { style: { display: panel.type === "stat" ? "flex" : "block" } }, h(kind, { panel, width: innerWidth, height: innerHeight }))
      : h("div", { style: { padding: 12, color: "#777" } }, kind ? "No data" : "A heatmap, which no published component draws");
  return h("div", { style }, h(PanelChrome, { title: panel.title, width, height, padding: "sm", children: inside }));
}

const lowest = Math.max(...panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
createRoot(document.getElementById("root")).render(
  h(
    "div",
    { style: { position: "relative", width: 24 * CELL.width, height: lowest * CELL.height + 56, background: theme.colors.background.canvas, fontFamily: "Inter, Helvetica, Arial, sans-serif", fontSize: 14, color: theme.colors.text.primary } },
    h("div", { style: { padding: 12, fontSize: 18, fontWeight: 500 } }, title),
    panels.map((panel) => h(Panel, { key: panel.id, panel })),
  ),
);
