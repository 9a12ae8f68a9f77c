// What is known now: asked for once, and kept up by the events; and how far it can be trusted.

import { get, session, Refused } from "./api.js";
import { learnDigits } from "./dom.js";
import { afterPress } from "./press.js";

const POLL_MS = 3000;
const SILENT_MS = 12000; // the worker is heard every five seconds
const MOST_ACTIVITY = 500;
const MOST_ORDERS = 20000;

export const known = {
  orders: new Map(),
  open: new Map(), // of these, those that are not over
  positions: [],
  accounts: new Map(),
  limits: new Map(),
  breaks: new Map(),
  errors: [],
  letters: [], // open dead letters, the newest first
  moreLetters: false,
  alarms: [],
  activity: [],
  commands: new Map(),
  reasons: [],
  missing: new Map(), // what was asked for, and who did not answer
  ordersCut: false,
};

const FINAL = new Set(["filled", "cancelled", "rejected", "failed"]);
export const isOpen = (order) => !FINAL.has(order.status);

export const link = { state: "connecting", heardAt: 0, offsetMs: 0, lostAt: 0, missed: 0, delays: [] };

const watchers = new Set();
let dirty = new Set();
let scheduled = false;

/** Call ``watcher(changed)`` with the names of what changed, once a frame at most, and not during a press. */
export function watch(watcher) {
  watchers.add(watcher);
}

export function unwatch(watcher) {
  watchers.delete(watcher);
}

export function changed(...names) {
  for (const name of names) dirty.add(name);
  if (scheduled) return;
  scheduled = true;
  const say = () => {
    scheduled = false;
    const names = dirty;
    dirty = new Set();
    for (const watcher of watchers) watcher(names);
  };
  // A page in the background gets no frames, and must not fall behind for ever.
  if (document.hidden) setTimeout(say, 500);
  else requestAnimationFrame(() => afterPress(say));
}

// --- asking

function note(what, body) {
  if (body.missing && body.missing.length) known.missing.set(what, body.missing);
  else known.missing.delete(what);
}

async function ask(what, path, take, noted = what) {
  try {
    const body = await get(path);
    note(noted, body);
    take(body);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) return lost();
    known.missing.set(noted, error.body.missing && error.body.missing.length ? error.body.missing : [error.message]);
  }
  changed(what, "link");
}

export function takeOrder(order) {
  const had = known.orders.get(order.order_id);
  if (had && had.rev > order.rev) return;
  if (order.quote) { learnDigits(order.symbol, order.quote.bid); learnDigits(order.symbol, order.quote.ask); }
  // What changed last is last in it: sorting by time has little to do, and what was silent longest is forgotten first.
  if (!had || had.rev < order.rev) known.orders.delete(order.order_id);
  known.orders.set(order.order_id, order);
  if (isOpen(order)) known.open.set(order.order_id, order);
  else known.open.delete(order.order_id);
  if (known.orders.size > MOST_ORDERS) known.orders.delete(known.orders.keys().next().value);
}

const loadOrders = () => ask("orders", "orders?limit=1000", (body) => {
  for (const order of body.orders.reverse()) takeOrder(order);
  known.ordersCut = body.more;
});
// What is claimed and what works at the broker is not published, so it is asked for; the workers have it in memory.
const loadSubmitted = () => ask("orders", "orders?status=submitted&limit=200", (body) => {
  for (const order of body.orders) takeOrder(order);
});
const loadPositions = () => ask("positions", "positions", (body) => {
  for (const row of body.positions) if (row.broker) learnDigits(row.symbol, row.broker.open_price);
  known.positions = body.positions;
});
const loadAccounts = () => ask("accounts", "accounts", (body) => {
  // Those of a worker that did not answer stay as they were heard last: they grow old here, and can be halted all the same.
  const kept = body.incomplete ? [...known.accounts] : [];
  known.accounts = new Map([...kept, ...body.accounts.map((account) => [account.account, account])]);
});
const loadBreaks = () => ask("breaks", "breaks", (body) => {
  known.breaks = new Map(body.breaks.map((each) => [each.break_id, each]));
});
export const loadLetters = () => ask("letters", "dead-letters?open=1&limit=100", (body) => {
  known.letters = body.dead_letters;
  known.moreLetters = body.more;
});
const loadAlarms = () => ask("alarms", "alarms", (body) => {
  known.alarms = body.alarms;
});
const loadLimits = () => Promise.all([...known.accounts.keys()].map((account) =>
  ask("limits", `limits?account=${encodeURIComponent(account)}`, (body) => known.limits.set(account, body), `limits of ${account}`)));
async function loadHealth() {
  try {
    known.reasons = (await get("health")).reasons || [];
  } catch (error) {
    known.reasons = error.body && error.body.reasons ? error.body.reasons : [error.message];
  }
  changed("health");
}

export const reload = () => Promise.all([loadOrders(), loadPositions(), loadAccounts().then(loadLimits), loadBreaks(), loadLetters(), loadAlarms(), loadHealth()]);

let polls = 0;
async function poll() {
  if (session.reads && !document.hidden && link.state !== "lost") {
    polls += 1;
    await Promise.all([loadSubmitted(), loadPositions(), loadAccounts(), loadBreaks(), loadHealth(), ...(polls % 3 === 0 ? [loadLimits(), loadLetters(), loadAlarms()] : [])]);
  }
  setTimeout(poll, POLL_MS);
}

// --- hearing

let source = null;
let last = null;
let retry = 0;

/** Whoever logs in or out begins anew. */
export function start() {
  stop();
  if (!session.reads) return;
  link.state = link.heardAt ? "lost" : "connecting";
  source = new EventSource("events" + (last ? `?after=${encodeURIComponent(last)}` : ""));
  source.addEventListener("hello", async (event) => {
    last = event.lastEventId;
    const hello = JSON.parse(event.data);
    link.missed = hello.missed;
    retry = 0;
    heard(hello.at);
    link.state = "live";
    if (!hello.resumed) await reload();
  });
  source.addEventListener("beat", (event) => heard(JSON.parse(event.data).at));
  source.addEventListener("said", (event) => {
    last = event.lastEventId;
    link.heardAt = Date.now();
    link.state = "live";
    let said;
    try {
      said = JSON.parse(event.data);
    } catch {
      return; // another connector has said what is no JSON
    }
    take(said.subject, said.message);
  });
  source.onerror = () => {
    lost();
    // The browser comes back by itself from a broken connection, and not from an answer that was an error.
    if (source && source.readyState === EventSource.CLOSED) again();
  };
  changed("link");
}

export function stop() {
  if (source) source.close();
  source = null;
  clearTimeout(retry);
}

function again() {
  stop();
  retry = setTimeout(start, 1500);
}

function heard(at) {
  link.heardAt = Date.now();
  link.offsetMs = Date.now() - new Date(at).getTime();
  link.state = "live";
  changed("link");
}

function lost() {
  if (link.state !== "lost") link.lostAt = Date.now();
  link.state = "lost";
  document.dispatchEvent(new CustomEvent("link-lost"));
  changed("link");
}

setInterval(() => {
  if (source && link.state === "live" && Date.now() - link.heardAt > SILENT_MS) {
    lost();
    again();
  }
  changed("link");
}, 1000);
poll();

function take(subject, message) {
  if (message === null || typeof message !== "object") return;
  const schema = message.schema || "";
  switch (schema) {
    case "order/1":
      takeOrder(message);
      delay(message.updated_at);
      changed("orders");
      break;
    case "account/1":
      if (!takeAccount(message)) return;
      break;
    case "position/1":
      takePosition(message);
      changed("positions");
      break;
    case "break/1":
      if (message.disposition === "resolved") known.breaks.delete(message.break_id);
      else known.breaks.set(message.break_id, message);
      changed("breaks");
      break;
    case "command_result/1":
      known.commands.set(message.request_id, message);
      if (message.command === "alarm.acknowledge" && message.state === "done") loadAlarms();
      changed("commands");
      break;
    case "error/1":
      known.errors.unshift(message);
      known.errors.length = Math.min(known.errors.length, 200);
      changed("errors");
      break;
    case "fill/1":
      learnDigits(message.symbol, message.price);
      break;
  }
  known.activity.unshift({ subject, message, heard: Date.now() });
  known.activity.length = Math.min(known.activity.length, MOST_ACTIVITY);
  changed("activity");
}

/** Returns whether there is more news in it than money. */
function takeAccount(message) {
  const had = known.accounts.get(message.account);
  known.accounts.set(message.account, { ...message, heard_at: message.at });
  changed("accounts");
  return !had || ["trading", "trading_cause", "connection", "detail"].some((name) => had[name] !== message[name]);
}

function takePosition(message) {
  const same = (row) => row.account === message.account && row.position_id === message.position_id;
  const index = known.positions.findIndex(same);
  if (message.side === null || Number(message.volume) === 0) {
    if (index >= 0) known.positions.splice(index, 1);
  } else if (index >= 0) {
    if (known.positions[index].rev <= message.rev) known.positions[index] = { ...known.positions[index], ...message };
  } else {
    known.positions.push({ foreign: false, broker: null, broker_at: null, ...message });
  }
}

function delay(at) {
  link.delays.push(Date.now() - link.offsetMs - new Date(at).getTime());
  if (link.delays.length > 200) link.delays.shift();
}
