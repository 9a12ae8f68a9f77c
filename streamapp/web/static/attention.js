// What wants a person: what it is, what to do, and the evidence.

import { acknowledgeButton, letterButtons, settleButton } from "./actions.js";
import { heardAt, isOld } from "./accounts.js";
import { el, fill, time, trimmed, zone } from "./dom.js";
import { known } from "./live.js";

const words = (text) => String(text || "").replaceAll("_", " ");
const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");
const orderLink = (orderId) => (orderId ? el("a", { href: `#order/${encodeURIComponent(orderId)}` }, "its life") : null);

const DOUBT = {
  in_doubt: "The request may have reached the broker. It is never sent again; the terminal looks for it. Wait; if it was not found after the settle window, it is over by itself.",
  suspicion: "Something like it is at the broker without its name. Compare the tickets, then `streamapp account settle`.",
};
const ERRORS = {
  unprotected: "Its position lacks a stop loss or take profit that it should have: set it under Positions, or close it.",
  in_doubt: "The position may be there. Look at the account's history in the terminal.",
};
const BREAK = "Compare with the broker. If it has an explanation, settle it with that reason; neither book is changed by it.";

/** All items: {key, version, kind, title, todo, evidence, payload, button}. */
export function items() {
  const found = [];
  for (const order of known.open.values()) {
    if (order.detail === "in_doubt" || order.detail === "suspicion") {
      found.push({ key: order.order_id, version: order.rev, kind: "doubt", title: `Doubt: ${order.side} ${trimmed(order.volume)} ${order.symbol} at ${order.account}`, todo: DOUBT[order.detail], evidence: [order.reason || words(order.detail), " · since ", time(order.updated_at), " · ", orderLink(order.order_id)] });
    }
  }
  for (const each of known.breaks.values()) {
    if (each.disposition !== "open") continue;
    found.push({ key: each.break_id, version: [each.revision, each.ours, each.theirs], kind: "break", title: `Break: ${words(each.kind)}, ${each.symbol} at ${each.account}`, todo: BREAK, evidence: [`ours ${each.ours || "nothing"} · the broker's ${each.theirs || "nothing"}${each.lots ? ` · ${trimmed(each.lots)} lots` : ""} · since `, time(each.first_seen), each.order_id ? " · " : null, orderLink(each.order_id)], button: () => settleButton(each) });
  }
  for (const account of known.accounts.values()) {
    if (account.trading === "halted" || account.trading === "reducing") found.push({ key: `trading ${account.account}`, version: [account.trading, account.trading_cause], kind: "account", title: `${account.account} is ${account.trading}`, todo: "Once its cause was looked at, resume it under Accounts.", evidence: [account.trading_cause || "no cause was given", account.trading_by ? ` · by ${account.trading_by}` : null, account.trading_since ? [" · since ", time(account.trading_since)] : null].flat() });
    if (account.connection !== "ready" || isOld(account)) found.push({ key: `terminal ${account.account}`, version: [account.connection, account.detail, isOld(account)], kind: "account", title: `The terminal of ${account.account} ${account.connection === "ready" ? "was not heard for a while" : `is not ready: ${words(account.connection)}`}`, todo: "Its orders wait until they are too old. Look at the terminal; docs/operations.md.", evidence: [account.detail || "no detail", " · last heard ", time(heardAt(account))] });
  }
  for (const error of known.errors) {
    if (!(error.kind in ERRORS)) continue;
    found.push({ key: error.error_id, version: 0, kind: "error", title: `${words(error.kind)}: ${error.symbol} at ${error.account}`, todo: ERRORS[error.kind], evidence: [error.message || error.retcode_name || "", " · ", time(error.at), " · ", orderLink(error.order_id)] });
  }
  for (const letter of known.letters) {
    const whose = [letter.account, letter.symbol, letter.message_id].filter(Boolean).join(" · ");
    found.push({ key: `letter ${letter.id}`, version: [letter.disposition, letter.not_redrivable], kind: "letter", title: `Dead letter ${letter.id}: ${letter.meaning}`, todo: [letter.todo, sentence(letter.not_redrivable), letter.disposition === "unfinished" ? "It was to be sent again, and nobody knows whether it was: do it again, it counts once." : ""].filter(Boolean).join(" "), evidence: [`${letter.reason}: ${letter.detail} · from ${letter.subject || letter.source} · `, time(letter.at), whose ? ` · ${whose}` : null], payload: letter.payload, button: () => el("div", { class: "buttons" }, letterButtons(letter)) });
  }
  for (const each of known.alarms) {
    found.push({ key: `alarm ${each.alarm} ${each.account}`, version: each.alarm_id, kind: "alarm", title: `Alarm: ${words(each.alarm)}, ${each.account}`, todo: sentence(`${each.meaning}: ${each.todo}`), evidence: [`rang ${each.count === 1 ? "once" : `${each.count} times`}, last `, time(each.at), ` · ${each.text.slice(0, 300)} · `, orderLink(each.order_id)], button: () => acknowledgeButton(each) });
  }
  for (const reason of known.reasons) found.push({ key: `health ${reason}`, version: 0, kind: "worker", title: reason, todo: "This worker says so of itself. What it means and what to do: docs/operations.md.", evidence: [] });
  return found;
}

export function attentionView() {
  const list = el("ul", { class: "items" });
  const empty = el("p", { class: "empty" }, "Nothing wants a person now.");
  const older = el("p", { class: "note" }, "There are older dead letters: `streamapp dead-letters list`.");
  const kept = new Map();
  function draw() {
    const found = items();
    empty.hidden = found.length > 0;
    older.hidden = !known.moreLetters;
    const now = new Set(found.map((item) => item.key));
    for (const [key, { element }] of kept) if (!now.has(key)) { element.remove(); kept.delete(key); }
    for (const item of found) {
      const version = JSON.stringify([item.version, zone.utc]);
      const had = kept.get(item.key);
      if (had && had.version === version) continue;
      const element = el("li", { class: item.kind }, el("h3", {}, item.title), el("p", {}, item.evidence), item.payload === undefined ? null : el("pre", { tabindex: "0" }, item.payload), el("p", { class: "note" }, item.todo), item.button ? item.button() : null);
      if (had) had.element.replaceWith(element);
      else list.append(element);
      kept.set(item.key, { element, version });
    }
  }
  draw();
  const unseen = el("p", { class: "note" }, "Unprotected orders are listed since this page was opened.");
  return { element: el("section", { "aria-label": "Attention" }, empty, list, older, unseen), update: () => draw() };
}
