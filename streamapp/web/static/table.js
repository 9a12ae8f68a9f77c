// A table of any length, of which only the rows in sight are in the document.

import { el, fill } from "./dom.js";

const SPARE = 10;

export class Table {
  /**
   * @param caption What the table shows, for who hears it.
   * @param columns {title, cell(row) -> text or node, class}: class "n" for numbers, "wide" where there is room.
   * @param key Returns what identifies a row.
   * @param version Returns what changes when its cells do.
   */
  constructor({ caption, columns, key, version, empty, rowClass }) {
    Object.assign(this, { columns, key, version, rowClass });
    this.rows = [];
    this.kept = new Map();
    this.body = el("tbody");
    this.above = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td", { colspan: columns.length }));
    this.below = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td", { colspan: columns.length }));
    this.empty = el("p", { class: "empty" }, empty);
    this.table = el("table", {}, el("caption", { class: "hidden" }, caption),
      el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.class }, column.title)))), this.body);
    this.scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, onscroll: () => this.draw() }, this.table);
    this.element = el("div", { class: "table" }, this.scroll, this.empty);
    new ResizeObserver(() => this.draw()).observe(this.scroll);
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    this.empty.hidden = this.rows.length > 0;
    this.table.hidden = this.rows.length === 0;
    const height = this.rowHeight();
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / height) - SPARE);
    const many = Math.ceil((this.scroll.clientHeight || 600) / height) + 2 * SPARE;
    const seen = this.rows.slice(first, first + many);
    const kept = new Map();
    const drawn = seen.map((row, index) => {
      const key = this.key(row);
      const version = this.version(row);
      let one = this.kept.get(key);
      if (!one) one = { element: el("tr"), version: undefined };
      if (one.version !== version) this.fillRow(one, row, version);
      one.element.setAttribute("aria-rowindex", first + index + 2);
      kept.set(key, one);
      return one.element;
    });
    this.kept = kept;
    this.above.firstChild.style.height = `${first * height}px`;
    this.below.firstChild.style.height = `${Math.max(0, this.rows.length - first - seen.length) * height}px`;
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
    this.place([this.above, ...drawn, this.below]);
  }

  // Rows that are in their place stay: what has the focus, or is being read, is not taken away.
  place(wanted) {
    let next = this.body.firstChild;
    for (const element of wanted) {
      if (element === next) next = next.nextSibling;
      else this.body.insertBefore(element, next);
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
  }

  fillRow(one, row, version) {
    const had = one.element.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    fill(one.element, this.columns.map((column) => el("td", { class: column.class }, column.cell(row))));
    one.element.className = this.rowClass ? this.rowClass(row) : "";
    one.version = version;
    if (had) for (const button of one.element.querySelectorAll("button")) if (button.dataset.name === had) button.focus();
  }

  rowHeight() {
    return parseFloat(getComputedStyle(this.table).getPropertyValue("--row")) || 32;
  }
}
