// The blotter, and an order's life.

import { get, Refused } from "./api.js";
import { orderButtons } from "./actions.js";
import { facts, show } from "./dialog.js";
import { bothTimes, el, fill, gain, learnDigits, lots, price, side, time, trimmed, zone } from "./dom.js";
import { saveCsv } from "./files.js";
import { isOpen, known, takeOrder, unwatch, watch } from "./live.js";
import { afterPress } from "./press.js";
import { Table } from "./table.js";

const STATUSES = ["pending", "submitted", "partially_filled", "filled", "cancelled", "rejected", "failed"];
const words = (text) => String(text || "").replaceAll("_", " ");

export function status(order) {
  const detail = order.detail ? `: ${words(order.detail)}` : "";
  return el("span", { class: `status ${order.status} ${order.detail === "in_doubt" ? "doubt" : ""}`, title: order.reason || "" }, words(order.status) + detail);
}

const filter = { status: "", account: "", symbol: "", strategy: "", search: "", day: "" };
const day = { on: "", orders: new Map(), next: null, loading: false, error: "" };

const slip = (order) => {
  const found = order.slippage && (order.slippage.expected || order.slippage.touch);
  return found && found.points !== null ? trimmed(found.points) : "";
};

const columns = [
  { title: "Updated", cell: (o) => time(o.updated_at) },
  { title: "Order", class: "wide", cell: (o) => opener(o, `…${o.order_id.slice(-8)}`) },
  { title: "Account", class: "wide", cell: (o) => o.account },
  { title: "Symbol", cell: (o) => opener(o, o.symbol) },
  { title: "Side", cell: (o) => side(o.side) },
  { title: "Type", class: "wide", cell: (o) => words(o.order_type) + (o.intent === "open" ? "" : `, ${o.intent}`) },
  { title: "Lots", class: "n", cell: (o) => (isOpen(o) || Number(o.filled_volume) !== Number(o.volume) ? `${trimmed(o.filled_volume)} / ` : "") + trimmed(o.volume) },
  { title: "Price", class: "n wide", cell: (o) => price(o.symbol, o.price) },
  { title: "Average", class: "n wide", cell: (o) => price(o.symbol, o.average_price) },
  { title: "Slippage", class: "n wide", cell: slip },
  { title: "Status", cell: status },
  { title: "Strategy", class: "wider", cell: (o) => o.strategy || "" },
  { title: "Signal", class: "wider", cell: (o) => o.signal_id },
  { title: "", class: "acts wide", cell: (o) => el("span", { class: "buttons" }, orderButtons(o)) },
];

const opener = (order, label) => el("button", { type: "button", class: "link", "data-name": label, onclick: () => { location.hash = `#order/${encodeURIComponent(order.order_id)}`; } }, label);

export function ordersView() {
  const table = new Table({ caption: "Orders", columns, key: (o) => o.order_id, version: (o) => `${o.rev} ${zone.utc}`, empty: "No order that fits.", rowClass: (o) => (isOpen(o) ? "open" : "") });
  const count = el("p", { class: "note", role: "status" });
  const choices = { account: el("datalist", { id: "accounts-known" }), symbol: el("datalist", { id: "symbols-known" }), strategy: el("datalist", { id: "strategies-known" }) };
  const statuses = el("select", {}, el("option", { value: "" }, "any"), el("option", { value: "open" }, "all that are open"), STATUSES.map((each) => el("option", { value: each }, words(each))));
  const inputs = {
    status: statuses,
    account: el("input", { list: "accounts-known", size: 12, autocomplete: "off" }),
    symbol: el("input", { list: "symbols-known", size: 9, autocomplete: "off" }),
    strategy: el("input", { list: "strategies-known", size: 10, autocomplete: "off" }),
    search: el("input", { type: "search", size: 16, autocomplete: "off", placeholder: "order or signal id" }),
    day: el("input", { type: "date" }),
  };
  const labels = { status: "Status", account: "Account", symbol: "Symbol", strategy: "Strategy", search: "Id", day: "Closed on (UTC)" };
  const form = el("form", { class: "filters", role: "search", "aria-label": "Which orders", onsubmit: (event) => { event.preventDefault(); find(); } },
    Object.entries(inputs).map(([name, input]) => {
      input.value = filter[name];
      input.addEventListener("input", () => { filter[name] = input.value.trim(); if (name === "day") openDay(); draw(); });
      return el("label", {}, el("span", {}, labels[name]), input);
    }), Object.values(choices),
    el("button", { type: "button", onclick: () => { for (const [name, input] of Object.entries(inputs)) { input.value = filter[name] = ""; } openDay(); draw(); } }, "Clear"),
    el("button", { type: "button", onclick: () => save(rows()) }, "Save as CSV"));
  const box = el("details", { class: "filtering", open: innerWidth > 600 }, el("summary", {}, "Filters"), form);
  const more = el("button", { type: "button", hidden: true, onclick: () => loadDay() }, "Show earlier ones");

  function rows() {
    const from = filter.day ? day.orders : known.orders;
    const found = [];
    for (const order of from.values()) if (fits(order)) found.push(order);
    return found.reverse().sort((a, b) => (a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : 0));
  }

  function draw() {
    const found = rows();
    table.show(found);
    const open = filter.day ? [] : [...known.open.values()].filter(fits);
    const notes = [`${found.length.toLocaleString("en-GB")} orders, ${open.length} open (${lots(open, (row) => row.remaining_volume)} lots)`];
    if (filter.day && day.loading) notes.push("loading…");
    if (filter.day && day.error) notes.push(day.error);
    if (!filter.day && known.ordersCut) notes.push("older ones: choose their day");
    const text = notes.join(" · ");
    if (count.textContent !== text) fill(count, text);
    more.hidden = !(filter.day && day.next && !day.loading);
    if (performance.now() > offeredAt + 3000) offer();
  }

  let offeredAt = -Infinity;
  function offer() {
    offeredAt = performance.now();
    for (const [name, list] of Object.entries(choices)) {
      const values = [...new Set([...known.orders.values()].map((order) => order[name]).filter(Boolean))].sort().slice(0, 200);
      if (list.dataset.values !== values.join("\n")) { list.dataset.values = values.join("\n"); fill(list, values.map((value) => el("option", { value }))); }
    }
  }

  // What is searched for may be older than all that is here.
  async function find() {
    if (!filter.search) return;
    try {
      for (const order of (await get(`orders?limit=100&signal_id=${encodeURIComponent(filter.search)}`)).orders) takeOrder(order);
      if (!rows().length) takeOrder(await get(`orders/${encodeURIComponent(filter.search)}?facts=0`));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
    draw();
  }

  async function openDay() {
    if (day.on === filter.day) return;
    Object.assign(day, { on: filter.day, orders: new Map(), next: null, error: "" });
    if (filter.day) await loadDay();
  }

  async function loadDay() {
    const on = day.on;
    day.loading = true;
    draw();
    try {
      const before = day.next ? `&before=${encodeURIComponent(day.next)}` : "";
      const body = await get(`orders?day=${on}&limit=1000${before}`);
      if (on !== day.on) return;
      for (const order of body.orders) day.orders.set(order.order_id, order);
      day.next = body.next;
      day.error = body.missing.length ? `no answer from ${body.missing.join(", ")}` : "";
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      day.error = error.message;
    } finally {
      day.loading = false;
    }
    draw();
  }

  let drawnAt = 0;
  let waiting = null;
  // Ten thousand rows take some milliseconds, and the table's layout as many: ten times a second at most.
  function soon() {
    if (waiting) return;
    waiting = setTimeout(() => afterPress(() => { waiting = null; drawnAt = performance.now(); draw(); }), Math.max(0, drawnAt + 100 - performance.now()));
  }
  draw();
  return { element: el("section", { class: "fill", "aria-label": "Orders" }, box, count, table.element, more), update: (names) => { if (names.has("orders") || names.has("zone")) soon(); } };
}

function fits(order) {
  if (filter.status === "open" ? !isOpen(order) : filter.status && order.status !== filter.status) return false;
  if (filter.account && !order.account.includes(filter.account)) return false;
  if (filter.symbol && !order.symbol.toLowerCase().includes(filter.symbol.toLowerCase())) return false;
  if (filter.strategy && !(order.strategy || "").includes(filter.strategy)) return false;
  return !filter.search || order.order_id.includes(filter.search) || order.signal_id.includes(filter.search);
}

const SAVED = ["updated_at", "order_id", "signal_id", "account", "strategy", "symbol", "side", "order_type", "intent", "volume", "price", "status", "detail", "reason", "filled_volume", "average_price", "created_at", "submitted_at"];

function save(orders) {
  saveCsv(`orders-${filter.day || new Date().toISOString().slice(0, 10)}.csv`, [SAVED, ...orders.map((order) => SAVED.map((name) => order[name]))]);
}

// --- one order

export function openOrder(orderId, onclose) {
  const content = el("div", { class: "life" }, el("p", { role: "status" }, "Asking…"));
  const box = show(`Order ${orderId}`, content, { wide: true, onclose: () => { unwatch(refresh); onclose(); } });
  let rev = -1;
  let version = 0;
  async function load() {
    const mine = ++version;
    const put = (...children) => afterPress(() => { if (mine === version) fill(content, ...children); });
    try {
      const order = await get(`orders/${encodeURIComponent(orderId)}`);
      if (mine !== version) return;
      rev = order.rev;
      takeOrder(order);
      put(life(order));
      // ClickHouse may take its time, or be away: the rest is there before it.
      put(life(await get(`orders/${encodeURIComponent(orderId)}?evidence=1`)));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      put(el("p", { class: "error", role: "alert" }, error.message));
    }
  }
  const refresh = (names) => {
    const newest = known.orders.get(orderId);
    if (names.has("orders") && newest && newest.rev > rev) { rev = newest.rev; load(); }
  };
  watch(refresh);
  load();
  return box;
}

function life(order) {
  if (order.quote) { learnDigits(order.symbol, order.quote.bid); learnDigits(order.symbol, order.quote.ask); }
  const at = (text) => price(order.symbol, text);
  const cost = (found) => (found ? [found.points === null ? null : `${trimmed(found.points)} points`, `${trimmed(found.bps)} bps`, found.money === null ? null : `${trimmed(found.money)} ${order.slippage.currency || ""}`].filter(Boolean).join(", ") : null);
  const deals = order.facts.filter((fact) => fact.fact === "Filled" && fact.body);
  return [
    el("p", { class: "headline" }, side(order.side), ` ${trimmed(order.volume)} ${order.symbol} `, status(order), el("span", { class: "buttons" }, orderButtons(order))),
    order.reason ? el("p", {}, order.reason) : null,
    order.incomplete ? el("p", { class: "error" }, `Not all is known: no answer from ${order.missing.join(", ")}.`) : null,
    facts([
      ["Account", order.account], ["Strategy", order.strategy], ["Signal", order.signal_id], ["Type", words(order.order_type)], ["Intent", order.intent],
      ["Price", at(order.price)], ["Limit after the stop", at(order.stop_limit_price)], ["Stop loss", at(order.stop_loss)], ["Take profit", at(order.take_profit)],
      ["Time in force", order.expiration ? el("span", {}, "until ", time(order.expiration)) : order.time_in_force], ["Fill policy", order.fill_policy],
      ["Filled", `${trimmed(order.filled_volume)} of ${trimmed(order.volume)} lots`], ["Average price", order.average_price && el("span", { title: order.average_price }, at(order.average_price))],
      ["Quote at sending", order.quote && el("span", { title: bothTimes(order.quote.at) }, `${at(order.quote.bid)} / ${at(order.quote.ask)}`)],
      ["Expected price", order.expected_price && `${at(order.expected_price)} (${order.expected_price_source === "signal" ? "the signal's" : "mid at sending"})`],
      ["Slippage against it", cost(order.slippage && order.slippage.expected)], ["Against the quote", cost(order.slippage && order.slippage.touch)],
      ["Ticket", order.ticket && String(order.ticket)], ["Position", order.position_id && String(order.position_id)], ["Magic", String(order.magic)], ["Attempt", String(order.attempt)], ["Not after", time(order.not_after)],
    ]),
    deals.length ? el("h3", {}, "Fills") : null,
    deals.length ? small("Fills", ["Time", "Deal", "Lots", "Price", "Commission", "Profit"], deals.map(({ body }) => [time(body.time, { millis: true }), String(body.deal), trimmed(body.volume), at(body.price), trimmed(body.commission), trimmed(body.profit)])) : null,
    el("h3", {}, "Facts"),
    steps(order),
    ...evidence(order),
  ];
}

/** What ClickHouse has beside it: its position's money, the broker's log, and the signal as it came. */
function evidence(order) {
  if (order.log === undefined) return [el("p", { class: "note" }, "Asking ClickHouse for its position, the broker's log and the signal…")];
  if (order.log === null && order.signals === null) return [el("p", { class: "error" }, "No answer from ClickHouse: its position, the broker's log and the signal are not shown.")];
  const { position } = order;
  const details = (title, value) => el("details", {}, el("summary", {}, title), el("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2)));
  return [
    position ? el("h3", {}, "Its position") : null,
    position ? facts([["Open", position.side ? `${position.side} ${trimmed(position.volume)} lots` : "closed"], ["Realised profit", gain(position.realized_profit, position.currency)], ["As of", time(position.at)]]) : null,
    el("h3", {}, "Broker's log"),
    order.log && order.log.length ? small("Broker's log", ["Time", "Took", "Function", "What was asked and answered"], order.log.map((line) => [time(line.at, { millis: true }), `${(line.duration_us / 1000).toFixed(1)} ms`, line.function, details(line.last_error ? line.last_error.join(" ") : "details", { request: line.request, response: line.response })])) : el("p", { class: "note" }, order.log ? "No line of it is stored." : "No answer from ClickHouse."),
    el("h3", {}, "Signal as it came"),
    order.signals && order.signals.length ? small("Signal as it came", ["Time", "Decision", "Message"], order.signals.map((each) => [time(each.at, { millis: true }), `${words(each.decision)}${each.reason ? `: ${words(each.reason)}` : ""}`, details(`${each.payload.length} letters, place ${each.stream_seq} in the stream`, each.payload)])) : el("p", { class: "note" }, order.signals ? "It is not stored." : "No answer from ClickHouse."),
  ];
}

function small(caption, titles, rows) {
  return el("div", { class: "scroll small", tabindex: "0", role: "region", "aria-label": caption }, el("table", {}, el("caption", { class: "hidden" }, caption),
    el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, cell)))))));
}

/** Every fact with how long after the one before it was made, and what it says. */
function steps(order) {
  let before = new Date(order.signal_at).getTime();
  const rows = [[time(order.signal_at, { millis: true }), "", "Signal", order.signal_id]];
  for (const fact of order.facts) {
    if (!fact.body) { rows.push(["", "", "", `${fact.fact_id}: not at hand`]); continue; }
    const now = new Date(fact.at).getTime();
    rows.push([time(fact.at, { millis: true }), step(now - before), fact.fact, el("details", {}, el("summary", {}, gist(fact)), el("pre", {}, JSON.stringify(fact.body, null, 2)))]);
    before = now;
  }
  return small("Facts", ["Time", "After", "Fact", "What it says"], rows);
}

const step = (ms) => (Math.abs(ms) < 10000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

function gist({ body }) {
  const named = ["message", "reason", "retcode_name", "kind", "ticket", "deal", "volume", "price", "bid", "ask", "attempt"];
  const found = named.filter((name) => body[name] !== undefined && body[name] !== null && body[name] !== "").slice(0, 4).map((name) => `${name} ${body[name]}`);
  return found.join(", ") || "details";
}
