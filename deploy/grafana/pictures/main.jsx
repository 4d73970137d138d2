// Draws one dashboard from what Prometheus answered (window.DRAWN), with the components that Grafana draws with. Two things
// of Grafana's are published in no package, and are drawn here by hand: the cells of a heat map, and annotations' marks.
import { createElement as h, useLayoutEffect } from "react";
import { createRoot } from "react-dom/client";
import {
  createTheme,
  FieldColorModeId,
  FieldType,
  formattedValueToString,
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

const { title, from, to, marks, panels } = window.DRAWN;

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
    children: (config) => h(Marks, { config }),
  });
}

// A dashed line where a mark begins, a tinted range where it lasts, as Grafana has them.
function Marks({ config }) {
  useLayoutEffect(() => {
    config.addHook("draw", (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      for (const mark of marks) {
        const [begin, end] = [mark.from, mark.to].map((time) => Math.round(plot.valToPos(time, "x", true)));
        ctx.strokeStyle = ctx.fillStyle = theme.visualization.getColorByName(mark.color);
        ctx.globalAlpha = 0.12;
        ctx.fillRect(begin, bbox.top, end - begin, bbox.height);
        ctx.globalAlpha = 1;
        ctx.setLineDash([4, 3]);
        ctx.beginPath();
        ctx.moveTo(begin, bbox.top);
        ctx.lineTo(begin, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.restore();
    });
  }, [config]);
  return null;
}

// A column for each moment, a row for each bucket that ever had something, darker where more fell into it.
function Heat({ panel, width, height }) {
  const bound = (one) => (one.name === "+Inf" ? Infinity : Number(one.name));
  const buckets = [...panel.series].sort((one, other) => bound(one) - bound(other));
  const cumulated = buckets.map((one) => new Map(one.times.map((time, index) => [time, one.values[index] ?? 0])));
  const rows = buckets.map((one, index) => ({
    bound: bound(one),
    cells: one.times.map((time) => ({
      time,
      rate: Math.max(0, cumulated[index].get(time) - (index ? (cumulated[index - 1].get(time) ?? 0) : 0)),
    })),
  }));
  const filled = rows.map((row) => row.cells.some(({ rate }) => rate > 1e-9));
  const shown = rows.slice(filled.indexOf(true), filled.lastIndexOf(true) + 1);
  const highest = Math.max(...shown.flatMap((row) => row.cells.map(({ rate }) => rate)));
  const left = 60;
  const bottom = 20;
  const each = (height - bottom) / shown.length;
  const step = Math.min(...shown[0].cells.slice(1).map(({ time }, index) => time - shown[0].cells[index].time));
  const place = (time) => left + ((time - from) / (to - from)) * (width - left);
  const display = getDisplayProcessor({ field: { type: FieldType.number, config: { unit: "s" } }, theme });
  const text = (x, y, anchor, said) =>
    h("text", { key: `${anchor}${said}${x}${y}`, x, y, fill: theme.colors.text.secondary, fontSize: 11, textAnchor: anchor }, said);
  const cells = shown.flatMap((row, index) =>
    row.cells
      .filter(({ rate }) => rate > 1e-9)
      .map(({ time, rate }) =>
        h("rect", {
          key: `${index} ${time}`,
          x: place(time - step),
          y: height - bottom - (index + 1) * each,
          width: place(time) - place(time - step) - 0.5,
          height: each - 1,
          fill: theme.visualization.getColorByName("orange"),
          fillOpacity: Math.sqrt(rate / highest),
        }),
      ),
  );
  const labels = shown.map(({ bound: upper }, index) => {
    const said = upper === Infinity ? "more" : formattedValueToString(display(upper));
    return text(left - 6, height - bottom - (index + 0.5) * each + 4, "end", said);
  });
  const times = [0.1, 0.4, 0.7, 0.95].map((share) => {
    const time = new Date(from + share * (to - from));
    return text(place(time.valueOf()), height - 4, "middle", time.toISOString().slice(11, 19));
  });
  return h("svg", { width, height }, cells, labels, times);
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

const KINDS = { timeseries: Course, stat: Numbers, bargauge: Bars, table: Rows, heatmap: Heat };

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
    panel.series?.length || panel.rows?.length
      ? h("div", { style: { display: panel.type === "stat" ? "flex" : "block" } }, h(kind, { panel, width: innerWidth, height: innerHeight }))
      : h("div", { style: { padding: 12, color: "#777" } }, "No data");
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
