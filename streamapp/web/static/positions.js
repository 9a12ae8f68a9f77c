// Positions: the broker's side and ours, one beside the other, and what differs marked.

import { positionButtons } from "./actions.js";
import { ago, el, fill, gain, plural, price, side, time, trimmed, zone } from "./dom.js";
import { known } from "./live.js";
import { Table } from "./table.js";

const breakOf = (position) => [...known.breaks.values()].find((each) => each.account === position.account && each.position_id === position.position_id);
const same = (a, b) => Number(a) === Number(b);

function theirs(position) {
  if (position.broker_at === null) return el("span", { class: "note" }, "not known");
  if (!position.broker) return el("span", { class: "differs" }, "≠ nothing");
  const differs = position.broker.side !== position.side || !same(position.broker.volume, position.volume);
  return el("span", { class: differs ? "differs" : "" }, differs ? "≠ " : "", side(position.broker.side), ` ${trimmed(position.broker.volume)}`);
}

function mark(position) {
  const found = breakOf(position);
  if (found) return el("a", { href: "#attention", class: found.disposition === "open" ? "differs" : "note" }, `${found.disposition === "open" ? "≠ " : ""}break: ${found.kind.replaceAll("_", " ")}${found.disposition === "settled" ? ", settled" : ""}`);
  return position.foreign ? el("span", { class: "note" }, "not ours") : "";
}

const columns = [
  { title: "Account", cell: (p) => p.account },
  { title: "Symbol", cell: (p) => p.symbol },
  { title: "Ours", class: "n", cell: (p) => el("span", {}, side(p.side), ` ${trimmed(p.volume)}`) },
  { title: "Broker's", class: "n", cell: theirs },
  { title: "Average", class: "n wide", cell: (p) => price(p.symbol, p.average_price) },
  { title: "Stop loss", class: "n wide", cell: (p) => price(p.symbol, p.broker && p.broker.stop_loss) },
  { title: "Take profit", class: "n wide", cell: (p) => price(p.symbol, p.broker && p.broker.take_profit) },
  { title: "Floating", class: "n", cell: (p) => gain(p.broker && p.broker.profit) },
  { title: "Swap", class: "n wider", cell: (p) => gain(p.broker && p.broker.swap) },
  { title: "Realised", class: "n wide", cell: (p) => gain(p.realized_profit) },
  { title: "Opened", class: "wide", cell: (p) => time(p.opened_at || p.at) },
  { title: "Strategy", class: "wider", cell: (p) => p.strategy || "" },
  { title: "Position", class: "wider", cell: (p) => String(p.position_id) },
  { title: "State", cell: mark },
  { title: "", class: "acts", cell: (p) => el("span", { class: "buttons" }, positionButtons(p)) },
];

export function positionsView() {
  const table = new Table({
    caption: "Positions", columns, key: (p) => `${p.account} ${p.position_id}`, empty: "No open position.",
    version: (p) => JSON.stringify([p.rev, p.broker, p.foreign, breakOf(p)?.revision, zone.utc]), rowClass: (p) => (breakOf(p)?.disposition === "open" ? "marked" : p.foreign ? "foreign" : ""),
  });
  const note = el("p", { class: "note", role: "status" });
  function draw() {
    const rows = [...known.positions].sort((a, b) => a.account.localeCompare(b.account) || a.symbol.localeCompare(b.symbol) || a.position_id - b.position_id);
    table.show(rows);
    // Of one account all have one currency; of several they are not added up.
    const sums = new Map();
    for (const row of rows) if (row.broker) sums.set(row.currency, (sums.get(row.currency) || 0) + Number(row.broker.profit));
    const oldest = rows.map((row) => row.broker_at).filter(Boolean).sort()[0];
    fill(note, `${plural(rows.length, "position")}`, [...sums].flatMap(([currency, sum]) => [" · floating ", gain(sum, currency)]), oldest ? ` · the broker's side was read ${ago(oldest)}` : "");
  }
  draw();
  return { element: el("section", { class: "fill", "aria-label": "Positions" }, note, table.element), update: (names) => { if (["positions", "breaks", "zone"].some((name) => names.has(name))) draw(); } };
}
