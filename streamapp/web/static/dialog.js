// Dialogs: what a person is asked, and what is shown of one thing.

import { el, fill } from "./dom.js";

/** Open a dialog with a heading and content; Escape and its button close it. */
export function show(title, content, { onclose, wide } = {}) {
  const heading = el("h2", { id: "dialog-title" }, title);
  const box = el("dialog", { "aria-labelledby": "dialog-title", class: wide ? "wide" : "" },
    el("div", { class: "head" }, heading, el("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => box.close() }, "✕")), content);
  box.addEventListener("close", () => {
    box.remove();
    if (onclose) onclose();
  });
  document.body.append(box);
  box.showModal();
  return box;
}

/**
 * Ask before something is done, with what will happen in words.
 *
 * @param fields {name, label, value, type, required, hint}
 * @param act Called with the values; what it throws is shown, and the dialog stays.
 */
export function ask({ title, says, fields = [], confirm, danger, act }) {
  const inputs = new Map();
  const error = el("p", { class: "error", role: "alert" });
  const rows = fields.map((field) => {
    const input = el("input", { name: field.name, type: field.type || "text", value: field.value, required: field.required, autocomplete: "off", maxlength: field.max || 500, inputmode: field.inputmode });
    if (field.type === "checkbox") input.checked = Boolean(field.value);
    inputs.set(field.name, input);
    return el("label", { class: field.type === "checkbox" ? "check" : "" }, el("span", {}, field.label), input, field.hint ? el("small", {}, field.hint) : null);
  });
  const button = el("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm);
  const form = el("form", {},
    el("ul", { class: "says" }, says.map((line) => el("li", {}, line))), rows, error,
    el("div", { class: "buttons" }, el("button", { type: "button", onclick: () => box.close() }, "Cancel"), button));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = {};
    for (const [name, input] of inputs) values[name] = input.type === "checkbox" ? input.checked : input.value.trim();
    button.disabled = true;
    fill(error);
    try {
      await act(values);
      box.close();
    } catch (failure) {
      fill(error, failure.message);
      button.disabled = false;
    }
  });
  const box = show(title, form);
  (form.querySelector("input") || button).focus();
  return box;
}

/** A list of names and values; what has none is left out. */
export function facts(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
