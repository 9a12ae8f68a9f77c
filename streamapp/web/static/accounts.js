// Accounts: money, what is left of the day's limits, whether they may open, and how their terminals are.

import { accountButtons } from "./actions.js";
import { ago, el, fill, gain, money, time, zone } from "./dom.js";
import { facts } from "./dialog.js";
import { known } from "./live.js";

export const OLD_MS = 30000;
/** What is said of an account is as old as its last change; its terminal is heard all the time. ClickHouse does not know when. */
export const heardAt = (account) => account.heard_at || account.at;
export const isOld = (account) => Date.now() - new Date(heardAt(account)).getTime() > OLD_MS;
const TRADING = { open: "● trading", reducing: "◐ only reducing", halted: "■ halted", not_ready: "○ not ready" };
const GUARDS = { max_daily_loss: "daily loss", max_drawdown: "drawdown from the day's highest" };

function use(used) {
  const share = Number(used.share);
  const label = `${GUARDS[used.guard] || used.guard.replaceAll("_", " ")}: ${money(used.value)} of ${money(used.limit)} (${Math.round(share * 100)} %)`;
  return el("label", { class: share >= 0.8 ? "use high" : "use" }, el("span", {}, (share >= 0.8 ? "▲ " : "") + label), el("meter", { min: 0, max: 1, high: 0.8, value: Math.min(1, Math.max(0, share)) }, label));
}

function day(limits, currency) {
  const today = limits && limits.today;
  if (!today) return el("p", { class: "note" }, limits ? "Nothing is known of its day yet." : "Its limits are not known.");
  return el("div", {}, facts([["Day", today.on], ["Began with", money(today.equity, currency)], ["Highest", money(today.highest, currency)], ["Down since then", today.loss === null ? null : money(today.loss, currency)], ["Down from the highest", today.drawdown === null ? null : money(today.drawdown, currency)], ["Orders today", String(today.orders)], ["Step reached", today.reached && `${today.reached}${today.cause ? `: ${today.cause}` : ""}`]]),
    today.used.length ? today.used.map(use) : el("p", { class: "note" }, "No limit of a day's loss is set."));
}

function skew(limits) {
  const off = limits ? limits.clock_skew_s : null;
  if (off === null || off === undefined) return null;
  return Math.abs(off) < 0.05 ? "as ours" : `${Math.abs(off).toFixed(1)} s ${off > 0 ? "ahead" : "behind"}`;
}

function card(account) {
  const currency = account.currency || "";
  const limits = known.limits.get(account.account);
  const today = limits && limits.today;
  const positions = known.positions.filter((position) => position.account === account.account && position.broker);
  const floating = positions.reduce((sum, position) => sum + Number(position.broker.profit), 0);
  const breaks = [...known.breaks.values()].filter((each) => each.account === account.account && each.disposition === "open").length;
  return el("article", { class: `card ${account.trading}`, "aria-label": account.account },
    el("h2", {}, account.account, " ", el("span", { class: `state ${account.trading}` }, TRADING[account.trading] || account.trading)),
    account.trading_cause ? el("p", {}, `${account.trading_cause}${account.trading_by ? ` (by ${account.trading_by}` : ""}`, account.trading_since ? [account.trading_by ? ", since " : " (since ", time(account.trading_since)] : null, account.trading_by || account.trading_since ? ")" : "") : null,
    el("p", { class: account.connection === "ready" && !isOld(account) ? "terminal" : "terminal differs" }, `Terminal: ${account.connection.replaceAll("_", " ")}${account.detail ? `, ${account.detail}` : ""}; heard ${ago(heardAt(account))}${isOld(account) ? " — these figures are old" : ""}`),
    facts([["Balance", money(account.balance, currency)], ["Equity", money(account.equity, currency)], ["Floating", positions.length ? gain(floating, currency) : null],
      ["Today", today && account.equity !== null ? gain(Number(account.equity) - Number(today.equity) - Number(today.paid), currency) : null],
      ["Margin", money(account.margin, currency)], ["Free", money(account.margin_free, currency)], ["Margin level", account.margin_level && Number(account.margin_level) ? `${money(account.margin_level)} %` : null], ["Leverage", account.leverage && `1:${account.leverage}`],
      ["Mode", account.margin_mode], ["Broker's clock", account.server_offset_s === null ? null : `UTC${account.server_offset_s >= 0 ? "+" : "−"}${Math.abs(account.server_offset_s) / 3600}`],
      ["Terminal's clock", skew(limits)],
      ["Breaks", breaks ? el("a", { href: "#attention", class: "differs" }, `≠ ${breaks} open`) : null]]),
    el("h3", {}, "Today's limits"), day(limits, currency),
    el("div", { class: "buttons" }, accountButtons(account)));
}

export function accountsView() {
  const cards = el("div", { class: "cards" });
  const kept = new Map();
  function draw() {
    const accounts = [...known.accounts.values()].sort((a, b) => a.account.localeCompare(b.account));
    for (const account of accounts) {
      // A card that has not changed stays: what has the focus is not taken away.
      const version = JSON.stringify([account, known.limits.get(account.account), known.positions.filter((p) => p.account === account.account).map((p) => p.broker && p.broker.profit), [...known.breaks.values()].map((b) => [b.break_id, b.disposition]), zone.utc, isOld(account)]);
      const had = kept.get(account.account);
      if (had && had.version === version) continue;
      const element = card(account);
      if (had) {
        const name = had.element.contains(document.activeElement) ? document.activeElement.dataset.name : null;
        had.element.replaceWith(element);
        if (name) for (const button of element.querySelectorAll("button")) if (button.dataset.name === name) button.focus();
      } else cards.append(element);
      kept.set(account.account, { element, version });
    }
    for (const [name, { element }] of kept) if (!known.accounts.has(name)) { element.remove(); kept.delete(name); }
    if (!accounts.length) fill(cards, el("p", { class: "empty" }, "No terminal was heard yet."));
    else cards.querySelector(":scope > .empty")?.remove();
  }
  draw();
  return { element: el("section", { "aria-label": "Accounts" }, cards), update: (names) => { if (["accounts", "limits", "positions", "breaks", "zone", "link"].some((name) => names.has(name))) draw(); } };
}
