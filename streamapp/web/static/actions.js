// What a person may do here, and what became of it. The worker checks; here only what it would refuse is left out.

import { command, decide, may, requestId, Refused } from "./api.js";
import { ask } from "./dialog.js";
import { el, fill, lots, plural, price, trimmed } from "./dom.js";
import { changed, isOpen, known, loadLetters, watch } from "./live.js";

const REASON = { name: "reason", label: "Reason", required: true, hint: "It is kept with the command." };

// --- giving one, and hearing of it

const given = new Map();

async function give(name, body, what) {
  const asked = { request_id: requestId(), ...body };
  const one = { name, what, body: asked, state: "sent", detail: "" };
  given.set(asked.request_id, one);
  await attempt(one);
}

async function attempt(one) {
  one.state = "sent";
  one.detail = "";
  showResults();
  try {
    const result = await command(one.name, one.body);
    if (result) known.commands.set(one.body.request_id, newer(known.commands.get(one.body.request_id), result));
    else if (!known.commands.has(one.body.request_id)) one.state = "stored";
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    // Neither of these says that it was not heard.
    if (error.status === 0 || error.status === 503 || error.status >= 500) {
      one.state = "unknown";
      one.detail = error.message;
    } else {
      given.delete(one.body.request_id);
      throw error;
    }
  } finally {
    changed("commands");
  }
}

const newer = (had, result) => (had && had.revision >= result.revision ? had : result);

const WORDS = {
  sent: "sent, no answer yet",
  stored: "stored; nothing is known of it yet",
  accepted: "accepted, it is being carried out",
  done: "done",
  refused: "refused",
  failed: "failed",
  unknown: "nobody knows whether it was heard",
};

function showResults() {
  const box = document.getElementById("results");
  fill(box, [...given.values()].slice(-6).map((one) => {
    const result = known.commands.get(one.body.request_id);
    const state = result ? result.state : one.state;
    const detail = result ? [result.why, result.detail].filter(Boolean).join(": ") : one.detail;
    return el("div", { class: `result ${state}`, "data-state": state },
      el("strong", {}, one.what), " ", el("span", {}, WORDS[state] || state), detail ? el("small", {}, detail) : null,
      state === "unknown" || state === "stored"
        ? el("button", { type: "button", onclick: () => attempt(one) }, "Ask again (carried out once)")
        : null,
      el("button", { type: "button", class: "close", "aria-label": `Dismiss: ${one.what}`, onclick: () => { given.delete(one.body.request_id); showResults(); } }, "✕"));
  }));
}
watch((names) => { if (names.has("commands")) showResults(); });

export function button(name, label, onclick, options = {}) {
  return may(name) ? el("button", { type: "button", onclick, "data-name": name, ...options }, label) : null;
}

// --- orders

const asked = (order) => `${order.side} ${trimmed(order.volume)} ${order.symbol}`;

export function orderButtons(order) {
  if (!isOpen(order)) return [];
  return [
    button("order.cancel", "Cancel", () => cancelOrder(order), { "aria-label": `Cancel ${asked(order)}` }),
    order.order_type === "market" ? null : button("order.modify", "Modify", () => modifyOrder(order), { "aria-label": `Modify ${asked(order)}` }),
  ];
}

function cancelOrder(order) {
  ask({
    title: "Cancel order",
    says: [`What is left of ${asked(order)} at ${order.account} is cancelled: ${trimmed(order.remaining_volume)} lots.`,
      Number(order.filled_volume) ? `${trimmed(order.filled_volume)} lots are filled and stay.` : "Nothing of it is filled so far.",
      "What fills before the broker has the cancel stays filled."],
    fields: [REASON], confirm: `Cancel ${trimmed(order.remaining_volume)} lots`, danger: true,
    act: ({ reason }) => give("order.cancel", { order_id: order.order_id, reason }, `Cancel ${asked(order)}`),
  });
}

const LEVEL_HINT = "Empty: as it is. 0: none.";

function modifyOrder(order) {
  const fields = [["price", "Price", order.price], ["stop_limit_price", "Limit once the stop is reached", order.stop_limit_price], ["stop_loss", "Stop loss", order.stop_loss], ["take_profit", "Take profit", order.take_profit]]
    .filter(([name]) => name !== "stop_limit_price" || order.order_type === "stop_limit")
    .map(([name, label, value]) => ({ name, label: `${label}${value ? `, now ${price(order.symbol, value)}` : ""}`, inputmode: "decimal", hint: name.includes("price") ? "Empty: as it is." : LEVEL_HINT }));
  ask({
    title: "Modify order", says: [`${asked(order)} at ${order.account} keeps all that is left empty.`], fields: [...fields, REASON], confirm: "Modify",
    act: ({ reason, ...values }) => give("order.modify", { order_id: order.order_id, reason, values: said(values) }, `Modify ${asked(order)}`),
  });
}

const said = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));

// --- positions

const held = (position) => `${position.side} ${trimmed(position.volume)} ${position.symbol}`;

export function positionButtons(position) {
  if (position.foreign) return [];
  return [
    button("position.close", "Close", () => closePosition(position), { "aria-label": `Close ${held(position)}` }),
    button("position.modify", "Levels", () => protect(position), { "aria-label": `Stop loss and take profit of ${held(position)}` }),
  ];
}

function closePosition(position) {
  const floating = position.broker ? Number(position.broker.profit) : null;
  ask({
    title: "Close position",
    says: [`A market order closes ${held(position)} (position ${position.position_id}) at ${position.account}.`,
      floating === null ? "What it would bring now is not known." : `Its floating profit is ${floating.toFixed(2)} ${position.currency}.`],
    fields: [{ name: "volume", label: `Lots, of ${trimmed(position.volume)}`, inputmode: "decimal", hint: "Empty: all of it." }, REASON], confirm: "Close at the market", danger: true,
    act: ({ reason, volume }) => give("position.close", { account: position.account, position_id: position.position_id, reason, values: said({ volume }) }, `Close ${volume || trimmed(position.volume)} of ${held(position)}`),
  });
}

function protect(position) {
  const now = position.broker || {};
  const label = (name, text) => `${name}${text ? `, now ${price(position.symbol, text)}` : ", none now"}`;
  ask({
    title: "Stop loss and take profit", says: [`${held(position)} (position ${position.position_id}) at ${position.account}.`],
    fields: [{ name: "stop_loss", label: label("Stop loss", now.stop_loss), inputmode: "decimal", hint: LEVEL_HINT }, { name: "take_profit", label: label("Take profit", now.take_profit), inputmode: "decimal", hint: LEVEL_HINT }, REASON],
    confirm: "Set",
    act: ({ reason, ...values }) => give("position.modify", { account: position.account, position_id: position.position_id, reason, values: said(values) }, `Levels of ${held(position)}`),
  });
}

// --- accounts

const openOrders = (account) => [...known.open.values()].filter((order) => account === null || order.account === account);
const ours = (account) => known.positions.filter((position) => !position.foreign && (account === null || position.account === account));
const ordersIn = (account) => { const rows = openOrders(account); return `${plural(rows.length, "open order")} (${lots(rows, (row) => row.remaining_volume)} lots)`; };
const positionsIn = (account) => { const rows = ours(account); return `${plural(rows.length, "position")} of ours (${lots(rows)} lots)`; };

const ACCOUNT = {
  "account.halt": ["Halt", (a) => [`${a} opens nothing any more until somebody resumes it.`, `${ordersIn(a)} and ${positionsIn(a)} stay as they are.`]],
  "account.reduce": ["Only reduce", (a) => [`${a} opens nothing any more; what closes or reduces still passes.`, `${ordersIn(a)} and ${positionsIn(a)} stay as they are.`]],
  "account.resume": ["Resume", (a) => [`${a} opens again, whatever has halted it. Compare with the broker first.`]],
  "account.cancel_all": ["Cancel orders", (a) => [`All that works at ${a} is cancelled: ${ordersIn(a)}.`, `${positionsIn(a)} stay open.`]],
  "account.flatten": ["Flatten", (a) => [`${a} is halted. Cancelled: ${ordersIn(a)}. Closed at the market: ${positionsIn(a)}.`, "Positions that are not ours are left alone."]],
};

export function accountButtons(account) {
  const trading = account.trading;
  return Object.entries(ACCOUNT).map(([name, [label, says]]) => {
    if (name === "account.resume" && trading !== "halted" && trading !== "reducing") return null;
    if (name === "account.halt" && trading === "halted") return null;
    if (name === "account.reduce" && trading !== "open") return null;
    const act = () => ask({
      title: `${label}: ${account.account}`, says: says(account.account), fields: [REASON], confirm: `${label} ${account.account}`, danger: name !== "account.resume",
      act: ({ reason }) => give(name, { account: account.account, reason }, `${label} ${account.account}`),
    });
    return button(name, label, act, { class: name === "account.flatten" ? "danger" : "", "aria-label": `${label} ${account.account}` });
  });
}

export function killSwitch() {
  const accounts = [...known.accounts.keys()].sort();
  ask({
    title: "Halt everything",
    says: [accounts.length ? `${plural(accounts.length, "account")} open nothing any more: ${accounts.join(", ")}.` : "No account is known here: nothing would be halted.",
      `${ordersIn(null)} and ${positionsIn(null)} stay as they are, unless you flatten.`,
      known.missing.size ? "Not everybody has answered: there may be more accounts than these." : null].filter(Boolean),
    fields: [{ ...REASON, value: "kill switch" }, { name: "flatten", label: "Cancel the orders and close our positions as well (flatten)", type: "checkbox" }],
    confirm: `Halt ${plural(accounts.length, "account")}`, danger: true,
    act: async ({ reason, flatten }) => {
      const name = flatten ? "account.flatten" : "account.halt";
      const done = await Promise.allSettled(accounts.map((account) => give(name, { account, reason }, `${flatten ? "Flatten" : "Halt"} ${account}`)));
      const failed = done.filter((each) => each.status === "rejected").map((each) => each.reason.message);
      if (failed.length) throw new Error(`${failed.length} of ${accounts.length} were refused: ${failed[0]}`);
    },
  });
}

// --- breaks

export function settleButton(each) {
  if (each.disposition !== "open") return null;
  return button("break.settle", "Settle", () => ask({
    title: "Settle break",
    says: [`You say that the difference at ${each.account} has been judged: ours ${each.ours || "nothing"}, the broker's ${each.theirs || "nothing"}.`, "It changes neither book, and is told again only if another difference is found there."],
    fields: [REASON], confirm: "Settle",
    act: ({ reason }) => give("break.settle", { account: each.account, reason, values: { break_id: each.break_id } }, `Settle break of ${each.symbol}, ${each.account}`),
  }), { "aria-label": `Settle the break of ${each.symbol} at ${each.account}` });
}

// --- alarms

export function acknowledgeButton(each) {
  const what = `${each.alarm.replaceAll("_", " ")} of ${each.account}`;
  return button("alarm.acknowledge", "Acknowledge", () => ask({
    title: `Acknowledge: ${what}`,
    says: [`You say that it has been dealt with: ${each.todo}.`, "It leaves this list; it changes nothing else, and comes back if it rings again."],
    fields: [REASON], confirm: "Acknowledge",
    act: ({ reason }) => give("alarm.acknowledge", { account: each.account, reason, values: { alarm_id: each.alarm_id } }, `Acknowledge ${what}`),
  }), { "aria-label": `Acknowledge ${what}` });
}

// --- dead letters

const DEEDS = {
  redrive: ["Re-drive", (letter) => [`What came on ${letter.subject} is sent again, as the message that it was; what the desk then decides is said as for any signal.`, "Its sender was told that it is refused, and may have sent another in its place: make sure that it has not."]],
  acknowledge: ["Acknowledge", (letter) => [`You say that dead letter ${letter.id} has been dealt with. It is not sent again, and leaves this list.`]],
};

export function letterButtons(letter) {
  return Object.entries(DEEDS).map(([deed, [label, says]]) => {
    if (deed === "redrive" && letter.not_redrivable) return null;
    return button(`dead_letter.${deed}`, label, () => ask({
      title: `${label}: dead letter ${letter.id}`, says: says(letter), fields: [REASON], confirm: label, danger: deed === "redrive",
      act: async ({ reason }) => { try { await decide(letter.id, deed, reason); } finally { await loadLetters(); } },
    }), { "aria-label": `${label} dead letter ${letter.id}` });
  });
}
