// The page: who is here, which view is shown, and how far what it shows can be trusted.

import { accountsView } from "./accounts.js";
import { killSwitch } from "./actions.js";
import { activityView } from "./activity.js";
import { loadSession, login, logout, may, session } from "./api.js";
import { attentionView, items } from "./attention.js";
import { ask } from "./dialog.js";
import { clock, el, fill, setText, setZone, zone } from "./dom.js";
import { changed, known, link, reload, start, stop, watch } from "./live.js";
import { openOrder, ordersView } from "./orders.js";
import { plotsView } from "./plots.js";
import { positionsView } from "./positions.js";

const VIEWS = { orders: ordersView, positions: positionsView, accounts: accountsView, plots: plotsView, attention: attentionView, activity: activityView };
const MOST_OFFSET_MS = 2000;
const byId = (id) => document.getElementById(id);
let view = null;
let viewName = "";
let life = null;

// --- views

function show(name) {
  viewName = name;
  view = VIEWS[name]();
  fill(byId("main"), view.element);
  for (const anchor of document.querySelectorAll("nav a")) {
    if (anchor.hash === `#${name}`) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  document.title = `${name[0].toUpperCase()}${name.slice(1)} – streamapp`;
}

function route() {
  const [name, id] = location.hash.slice(1).split("/");
  if (life) { const box = life; life = null; box.close(); }
  if (!session.reads) return fill(byId("main"), el("p", { class: "empty" }, "Log in to see something here."));
  if (name === "order" && id) {
    if (!view) show("orders");
    const box = openOrder(decodeURIComponent(id), () => { if (life === box) { life = null; history.replaceState(null, "", `#${viewName}`); } });
    life = box;
  } else if (name in VIEWS) show(name);
  else if (!view || name === "") show("orders");
}

// --- who

async function enter() {
  try {
    await loadSession();
  } catch {
    setText(byId("link"), "No answer from the worker; trying again");
    byId("link").className = "lost";
    setTimeout(enter, 2000);
    return;
  }
  arrive();
}

function arrive() {
  setText(byId("who"), session.name ? `${session.name} (${session.role})` : session.reads ? "reading without a login" : "");
  byId("login").hidden = !session.login || Boolean(session.name);
  byId("logout").hidden = !session.name;
  byId("kill").hidden = !may("account.halt");
  view = null;
  if (session.reads) start();
  else { stop(); setText(byId("link"), "Not logged in"); askLogin(); }
  route();
}

function askLogin() {
  if (document.querySelector("dialog")) return;
  ask({
    title: "Log in", says: ["With a token that `streamapp token add` made. It is kept in a cookie until you log out or close the browser."],
    fields: [{ name: "token", label: "Token", type: "password", required: true, max: 256 }], confirm: "Log in",
    act: async ({ token }) => { await login(token); arrive(); },
  });
}

// --- how far it can be trusted

function tell(names) {
  const live = link.state === "live";
  const at = link.lostAt ? clock(new Date(link.heardAt || link.lostAt).toISOString()) : "";
  const text = !session.reads ? "Not logged in" : live ? "● Live" : link.state === "lost" ? `▲ Connection lost; this is as of ${at}. Trying again…` : "Connecting…";
  setText(byId("link"), text);
  byId("link").className = live ? "live" : link.state;
  document.body.classList.toggle("old", link.state === "lost");
  const warnings = [];
  if (live && Math.abs(link.offsetMs) > MOST_OFFSET_MS) warnings.push(`This computer's clock is ${Math.abs(link.offsetMs / 1000).toFixed(1)} s ${link.offsetMs > 0 ? "ahead of" : "behind"} the worker's: times here are the worker's.`);
  const silent = new Map();
  for (const [what, who] of known.missing) for (const one of who) silent.set(one, [...(silent.get(one) || []), what]);
  for (const [who, what] of silent) warnings.push(`No answer from ${who}: ${what.join(", ")} may be incomplete.`);
  const list = byId("warnings");
  if (list.dataset.text !== warnings.join("\n")) {
    list.dataset.text = warnings.join("\n");
    fill(list, warnings.map((line) => el("li", {}, line)));
  }
  if (["orders", "breaks", "accounts", "errors", "letters", "alarms", "health"].some((name) => names.has(name))) {
    const count = items().length;
    byId("attention-count").hidden = count === 0;
    setText(byId("attention-count"), String(count));
  }
}

function tick() {
  const now = new Date(Date.now() - (link.offsetMs || session.offsetMs || 0)).toISOString();
  setText(byId("clock"), clock(now));
  byId("clock").setAttribute("datetime", now);
}

watch((names) => {
  tell(names);
  if (view) view.update(names);
});
byId("zone").addEventListener("click", () => {
  setZone(!zone.utc);
  setText(byId("zone"), zone.utc ? "UTC" : "local");
  tick();
  changed("zone");
});
setText(byId("zone"), zone.utc ? "UTC" : "local");
byId("login").addEventListener("click", askLogin);
byId("logout").addEventListener("click", async () => { try { await logout(); } finally { location.reload(); } });
byId("kill").addEventListener("click", killSwitch);
window.addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => { if (!document.hidden && session.reads) reload(); });
// The token may have been revoked: the session says so.
document.addEventListener("link-lost", async () => {
  try {
    const { name, reads } = session;
    await loadSession();
    if (session.name !== name || session.reads !== reads) arrive();
  } catch {
    // no answer at all: the connection is lost, and says so
  }
});
setInterval(tick, 1000);
tick();
enter();
