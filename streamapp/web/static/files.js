// What is saved from the page: tables as CSV, pictures as PNG.

/** Save rows of values under a name; the first row is the heading. */
export function saveCsv(name, rows) {
  // A spreadsheet takes a text that begins so for a formula; a number may.
  const cell = (value) => {
    const text = String(value ?? "");
    const safe = /^[=+@\t\r]/.test(text) || (text.startsWith("-") && Number.isNaN(Number(text))) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  saveBlob(name, new Blob([rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }));
}

export function saveBlob(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
