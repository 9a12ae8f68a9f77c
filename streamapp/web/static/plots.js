// Plots of what ClickHouse has. A drag zooms, a double click shows all; the values under the pointer stand in the legend.

import { get, Refused } from "./api.js";
import { clock, el, fill, plural } from "./dom.js";
import { saveBlob, saveCsv } from "./files.js";
import { known } from "./live.js";
import uPlot from "./vendor/uplot/uPlot.esm.js";

const PLOTS = {
  equity: "Equity by account",
  fills: "Fills over the quote",
  latency: "Latency by step, milliseconds",
  "slippage-by-symbol": "Slippage by symbol, basis points",
  "slippage-by-strategy": "Slippage by strategy, basis points",
  rejects: "Rejects by reason",
};
// Okabe and Ito's colours, which colour-blind eyes tell apart, in a shade for either ground; lines differ in dashes as well.
const COLOURS = {
  light: ["#0072b2", "#d55e00", "#007a5a", "#8a4f7d", "#7a5c00", "#1b1f24"],
  dark: ["#56b4e9", "#ff9d5c", "#2fc79c", "#cc79a7", "#f0e442", "#e4e8ec"],
};
const THINGS = { time: ["moment"], symbol: ["symbol"], strategy: ["strategy", "strategies"], reason: ["reason"] };
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const HEIGHT = 380;
const AGAIN_MS = 15000;
const chosen = { plot: "equity", day: "", days: "1", account: "", symbol: "" };
const dark = matchMedia("(prefers-color-scheme: dark)");

const today = () => new Date().toISOString().slice(0, 10);
const isOverTime = (found) => found.x.name === "time";
// A count has another scale than what it counts: it is in the table.
const drawn = (found) => found.series.filter((series) => series.name !== "orders");
const names = (rows) => [...new Set(rows.filter(Boolean))].sort();

export function plotsView() {
  const inputs = {
    plot: el("select", {}, Object.entries(PLOTS).map(([value, title]) => el("option", { value }, title))),
    day: el("input", { type: "date", max: today() }),
    days: el("select", {}, [["1", "one day"], ["7", "7 days"], ["30", "30 days"], ["92", "92 days"]].map(([value, title]) => el("option", { value }, title))),
    account: el("input", { list: "plots-accounts", size: 12, autocomplete: "off" }),
    symbol: el("input", { list: "plots-symbols", size: 9, autocomplete: "off" }),
  };
  const labels = { plot: "Plot", day: "Until (UTC)", days: "Of", account: "Account", symbol: "Symbol" };
  const accounts = el("datalist", { id: "plots-accounts" });
  const symbols = el("datalist", { id: "plots-symbols" });
  const csv = el("button", { type: "button", disabled: true, onclick: () => saveCsv(`${fileName()}.csv`, table(shown)) }, "Save as CSV");
  const png = el("button", { type: "button", disabled: true, onclick: () => picture(chart, PLOTS[chosen.plot]).then((blob) => saveBlob(`${fileName()}.png`, blob)) }, "Save as PNG");
  const form = el("form", { class: "filters", "aria-label": "Which plot", onsubmit: (event) => { event.preventDefault(); load(); } },
    Object.entries(inputs).map(([name, input]) => {
      input.value = chosen[name];
      input.addEventListener("change", () => { chosen[name] = input.value.trim(); load(); });
      return el("label", {}, el("span", {}, labels[name]), input);
    }), accounts, symbols, csv, png);
  const note = el("p", { class: "note", role: "status" });
  const box = el("div", { class: "plot" });
  const twin = el("details", {}, el("summary", {}, "As a table"));
  twin.addEventListener("toggle", () => drawTwin());
  let shown = null;
  let chart = null;
  let asked = 0;
  let loadedAt = 0;
  let zoomed = false;

  const fileName = () => `${chosen.plot}-${chosen.day || today()}`;

  async function load() {
    const mine = ++asked;
    loadedAt = performance.now();
    offer();
    if (chosen.plot === "fills" && !chosen.symbol) return show(null, "Choose a symbol: fills of several have no common price.");
    if (!shown) note.textContent = "Asking…";
    const query = Object.entries({ day: chosen.day, days: chosen.days, account: chosen.account, symbol: chosen.symbol }).filter(([, value]) => value);
    try {
      const found = await get(`plots/${chosen.plot}?${new URLSearchParams(query)}`);
      if (mine !== asked) return;
      const places = found.x.values.length;
      show(found, places ? `${plural(places, ...THINGS[found.x.name])}${found.left_out ? `; ${found.left_out} more are left out` : ""}. Drag to zoom, double click for all.` : "Nothing of it in this time.");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (mine === asked) show(null, error.message);
    }
  }

  function offer() {
    const orders = [...known.orders.values()];
    fill(accounts, names([...known.accounts.keys(), ...orders.map((order) => order.account)]).map((value) => el("option", { value })));
    fill(symbols, names(orders.map((order) => order.symbol)).map((value) => el("option", { value })));
  }

  function show(found, text) {
    shown = found && found.x.values.length ? found : null;
    note.textContent = text;
    csv.disabled = png.disabled = !shown;
    draw();
  }

  function draw() {
    if (chart) chart.destroy();
    chart = null;
    zoomed = false;
    fill(box);
    if (shown) {
      chart = new uPlot({ ...options(shown, box.clientWidth), hooks: { setSelect: [() => { zoomed = true; }] } }, data(shown), box);
      chart.over.addEventListener("dblclick", () => { zoomed = false; });
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", `${PLOTS[chosen.plot]}: ${drawn(shown).map((series) => series.name).join(", ")}. The values are in the table below.`);
    }
    drawTwin();
  }

  function drawTwin() {
    twin.hidden = !shown;
    const [summary] = twin.children;
    if (!shown || !twin.open) return fill(twin, summary);
    const [heading, ...rows] = table(shown);
    const cell = (value, place) => el("td", {}, place === 0 && isOverTime(shown) ? clock(value, { millis: true }) : String(value ?? ""));
    const head = el("thead", {}, el("tr", {}, heading.map((title) => el("th", { scope: "col" }, title))));
    const body = el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))));
    const caption = el("caption", { class: "hidden" }, PLOTS[chosen.plot]);
    fill(twin, summary, el("div", { class: "scroll small twin", tabindex: "0", role: "region", "aria-label": "The plot as a table" }, el("table", {}, caption, head, body)));
  }

  const resized = new ResizeObserver(() => {
    if (chart && box.clientWidth && Math.abs(box.clientWidth - chart.width) > 1) chart.setSize({ width: box.clientWidth, height: HEIGHT });
    if (!box.isConnected) { resized.disconnect(); dark.removeEventListener("change", draw); }
  });
  dark.addEventListener("change", draw);
  const element = el("section", { "aria-label": "Plots" }, form, note, box, twin);
  // Its width is known once it stands in the page.
  requestAnimationFrame(() => { resized.observe(box); load(); });

  function update(what) {
    if (what.has("zone")) draw();
    const isNow = !chosen.day || chosen.day >= today();
    const isLookedAt = zoomed || twin.open || box.matches(":hover");
    if (isNow && !isLookedAt && (what.has("orders") || what.has("accounts")) && performance.now() > loadedAt + AGAIN_MS) load();
  }
  return { element, update };
}

/** The heading, and a row for each place: as it came, also what is not drawn. */
function table(found) {
  const heading = [found.x.name, ...found.series.map((series) => (series.unit ? `${series.name} (${series.unit})` : series.name))];
  return [heading, ...found.x.values.map((x, place) => [x, ...found.series.map((series) => series.values[place])])];
}

// Bars of one word stand side by side, and a place is left free behind them.
const width = (found) => drawn(found).length + 1;

function data(found) {
  const series = drawn(found);
  if (isOverTime(found)) return [found.x.values.map((at) => new Date(at).getTime() / 1000), ...series.map((each) => each.values)];
  const places = found.x.values.length * width(found);
  const xs = Array.from({ length: places }, (_, place) => place);
  return [xs, ...series.map((each, number) => xs.map((place) => (place % width(found) === number ? each.values[Math.floor(place / width(found))] : null)))];
}

function options(found, wide) {
  const overTime = isOverTime(found);
  const style = getComputedStyle(document.documentElement);
  const [fg, line] = [style.getPropertyValue("--fg").trim(), style.getPropertyValue("--line").trim()];
  const axis = { stroke: fg, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const word = (place) => found.x.values[Math.floor(place / width(found))];
  return {
    width: wide || 600, height: HEIGHT, cursor: { drag: { x: true, y: false } }, legend: { live: true },
    scales: { x: { time: false, range: overTime ? undefined : (_, from, to) => [from - 1, to + 1] } },
    axes: [
      { ...axis, values: (plot, splits) => splits.map((split) => (overTime ? moment(split, plot) : "")), ...(overTime ? {} : {
        // One label a word, in the middle of its bars.
        splits: () => found.x.values.map((_, place) => place * width(found) + (width(found) - 2) / 2),
        values: (_, splits) => splits.map((split) => String(word(split)).slice(0, 18)), rotate: found.x.values.length > 6 ? -45 : 0, size: found.x.values.length > 6 ? 110 : 40,
      }) },
      { ...axis, size: 80, values: (_, splits, __, ___, step) => splits.map((split) => inSteps(split, step)) },
    ],
    series: [
      { label: found.x.name, value: (_, at) => (at === null || at === undefined ? "–" : overTime ? clock(new Date(at * 1000).toISOString(), { millis: true }) : String(word(at))) },
      ...drawn(found).map((series, number) => looks(series, number, overTime, found.plot)),
    ],
  };
}

function looks(series, number, overTime, plot) {
  const colours = COLOURS[dark.matches ? "dark" : "light"];
  const stroke = colours[number % colours.length];
  const value = (_, shown) => (shown === null || shown === undefined ? "–" : `${Number(shown.toFixed(5)).toLocaleString("en-GB", { maximumFractionDigits: 5 })} ${series.unit}`);
  const shared = { label: series.name, stroke, value, spanGaps: true };
  if (!overTime) return { ...shared, fill: `${stroke}99`, width: 1, paths: uPlot.paths.bars({ size: [0.9, 60] }), points: { show: false } };
  if (plot === "fills" && number > 1) return { ...shared, paths: () => null, points: { show: true, size: 9, fill: number === 2 ? stroke : "transparent", width: 2 } };
  const level = plot === "equity" || plot === "fills";
  return { ...shared, width: 2, dash: DASHES[number % DASHES.length], ...(level ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}), points: { show: series.values.filter((each) => each !== null).length < 3 } };
}

/** A number with as many places as its axis goes on by: a price has five. */
function inSteps(split, step) {
  const places = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  return split.toLocaleString("en-GB", { minimumFractionDigits: places, maximumFractionDigits: places });
}

function moment(second, plot) {
  const text = new Date(second * 1000).toISOString();
  const spans = plot.scales.x.max - plot.scales.x.min;
  const local = clock(text, { millis: spans < 5 });
  return spans > 2 * 86400 ? local.slice(0, 10) : spans > 600 ? local.replace(/:\d\d$/, "") : local;
}

/** The chart as a PNG with its title and legend, on the page's own ground. */
async function picture(chart, title) {
  const drawing = chart.ctx.canvas;
  const scale = devicePixelRatio || 1;
  const head = 28 * scale;
  const foot = 26 * scale;
  const canvas = el("canvas", { width: drawing.width, height: drawing.height + head + foot });
  const to = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  to.fillStyle = style.getPropertyValue("--bg").trim();
  to.fillRect(0, 0, canvas.width, canvas.height);
  to.fillStyle = style.getPropertyValue("--fg").trim();
  to.font = `${14 * scale}px sans-serif`;
  to.fillText(title, 10 * scale, 19 * scale);
  to.drawImage(drawing, 0, head);
  to.font = `${12 * scale}px sans-serif`;
  let x = 10 * scale;
  for (const series of chart.series.slice(1)) {
    if (!series.show) continue;
    to.fillStyle = series._stroke || series.stroke(chart);
    to.fillText(`■ ${series.label}`, x, drawing.height + head + 17 * scale);
    x += to.measureText(`■ ${series.label}   `).width;
  }
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
