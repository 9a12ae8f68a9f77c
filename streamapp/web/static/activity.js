// What was said, the newest first, one line each.

import { el, plural, time, trimmed, zone, price } from "./dom.js";
import { known } from "./live.js";
import { Table } from "./table.js";

const words = (text) => String(text || "").replaceAll("_", " ");

const LINES = {
  "order/1": (m) => ["order", `${m.side} ${trimmed(m.volume)} ${m.symbol} ${words(m.status)}${m.detail ? `: ${words(m.detail)}` : ""}${m.reason ? `, ${m.reason}` : ""}`, m.updated_at],
  "fill/1": (m) => ["fill", `${m.side} ${trimmed(m.volume)} ${m.symbol} at ${price(m.symbol, m.price)}, deal ${m.deal}${m.busted ? ", taken back" : ""}`, m.at],
  "error/1": (m) => ["error", `${words(m.kind)} ${m.symbol} ${m.retcode_name || ""} ${m.message}`, m.at],
  "position/1": (m) => ["position", m.side ? `${m.side} ${trimmed(m.volume)} ${m.symbol}` : `${m.symbol} closed`, m.at],
  "account/1": (m) => ["account", `${words(m.trading)}, terminal ${words(m.connection)}`, m.at],
  "account_operation/1": (m) => ["money", `${words(m.type)} ${m.amount || ""}`, m.at],
  "break/1": (m) => ["break", `${words(m.kind)} ${m.symbol} ${m.disposition}: ours ${m.ours || "nothing"}, the broker's ${m.theirs || "nothing"}`, m.at],
  "command_result/1": (m) => ["command", `${m.command} ${m.state}${m.detail ? `: ${m.detail}` : ""} (by ${m.issued_by || "nobody"})`, m.at],
  "accepted/1": (m) => ["signal", `${m.symbol} accepted`, m.at],
  "refused/1": (m) => ["refused", `${m.symbol} ${words(m.reason)}: ${m.detail || ""}`, m.at],
  "answer/1": (m) => ["signal", `${m.symbol}: ${(m.copies || []).map((copy) => `${copy.account} ${copy.decision}`).join(", ")}`, m.at],
};

function lineOf(entry) {
  if (!entry.line) {
    const write = LINES[entry.message.schema];
    const [kind, text, at] = write ? write(entry.message) : [entry.subject.split(".")[0], JSON.stringify(entry.message).slice(0, 300), entry.message.at || entry.message.updated_at];
    entry.line = { kind, text, at: at || new Date(entry.heard).toISOString(), account: entry.message.account || "", order: entry.message.order_id || "" };
  }
  return entry.line;
}

let numbers = 0;
const numberOf = (entry) => (entry.number ??= ++numbers);

export function activityView() {
  const table = new Table({
    caption: "Activity", key: numberOf, version: () => zone.utc, empty: "Nothing was said since this page was opened.",
    columns: [
      { title: "Time", cell: (e) => time(lineOf(e).at, { millis: true }) },
      { title: "What", cell: (e) => el("span", { class: `kind ${lineOf(e).kind}` }, lineOf(e).kind) },
      { title: "Account", class: "wide", cell: (e) => lineOf(e).account },
      { title: "", class: "text", cell: (e) => (lineOf(e).order ? el("a", { href: `#order/${encodeURIComponent(lineOf(e).order)}` }, lineOf(e).text) : lineOf(e).text) },
    ],
  });
  const note = el("p", { class: "note" });
  function draw() {
    table.show(known.activity);
    note.textContent = `The last ${plural(known.activity.length, "message")} since this page was opened`;
  }
  draw();
  return { element: el("section", { class: "fill", "aria-label": "Activity" }, note, table.element), update: (names) => { if (names.has("activity") || names.has("zone")) draw(); } };
}
