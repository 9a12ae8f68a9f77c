// Elements, and how times and numbers are written. Texts of others come in as text nodes and never as markup.

export function el(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- times

export const zone = { utc: localStorage.getItem("zone") !== "local" };

export function setZone(utc) {
  zone.utc = utc;
  localStorage.setItem("zone", utc ? "utc" : "local");
}

const two = (number) => String(number).padStart(2, "0");

function parts(date, utc) {
  return utc
    ? [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()]
    : [date.getFullYear(), date.getMonth() + 1, date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];
}

/** The time of day, and the day before it where it is another one than today; milliseconds if asked for. */
export function clock(text, { millis = false } = {}) {
  if (!text) return "";
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return String(text);
  const [year, month, day, hour, minute, second] = parts(date, zone.utc);
  const [thisYear, thisMonth, today] = parts(new Date(), zone.utc);
  const before = year === thisYear && month === thisMonth && day === today ? "" : `${year}-${two(month)}-${two(day)} `;
  const rest = millis ? `.${String(date.getUTCMilliseconds()).padStart(3, "0")}` : "";
  return `${before}${two(hour)}:${two(minute)}:${two(second)}${rest}`;
}

/** Both times in full, for a tooltip. */
export function bothTimes(text) {
  if (!text) return "";
  const date = new Date(text);
  const [year, month, day, hour, minute, second] = parts(date, false);
  return `${text.replace("T", " ").replace("Z", " UTC")}\n${year}-${two(month)}-${two(day)} ${two(hour)}:${two(minute)}:${two(second)} local`;
}

export function time(text, options) {
  return el("time", { datetime: text, title: bothTimes(text) }, clock(text, options));
}

export function ago(text) {
  const seconds = (Date.now() - new Date(text).getTime()) / 1000;
  if (seconds < 1.5) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

// --- numbers: they come as decimal texts, and are written as they came wherever that is short enough

const digits = new Map();

/** Learn how many digits a symbol's prices have, from a price as the broker wrote it. */
export function learnDigits(symbol, price) {
  if (typeof price !== "string") return;
  const places = (price.split(".")[1] || "").length;
  if (places <= 8 && places > (digits.get(symbol) ?? -1)) digits.set(symbol, places);
}

export function price(symbol, text) {
  if (text === null || text === undefined) return "";
  const places = digits.get(symbol);
  return places === undefined ? trimmed(text) : Number(text).toFixed(places);
}

/** Without the zeros at the end that only a column's width has made. */
export function trimmed(text) {
  if (text === null || text === undefined) return "";
  const plain = String(text);
  return plain.includes(".") ? plain.replace(/0+$/, "").replace(/\.$/, "") : plain;
}

export function money(text, currency = "") {
  if (text === null || text === undefined || text === "") return "";
  const written = Number(text).toLocaleString("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  return currency ? `${written} ${currency}` : written;
}

export function gain(text, currency) {
  if (text === null || text === undefined || text === "") return "";
  const value = Number(text);
  return el("span", { class: value < 0 ? "loss" : value > 0 ? "profit" : "" }, (value > 0 ? "+" : "") + money(text, currency));
}

export function lots(rows, of = (row) => row.volume) {
  return trimmed(rows.reduce((sum, row) => sum + Number(of(row) || 0), 0).toFixed(8));
}

export function side(text) {
  return el("span", { class: `side ${text}` }, text === "buy" ? "▲ buy" : text === "sell" ? "▼ sell" : text || "");
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
