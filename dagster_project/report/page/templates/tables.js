// Tables and charts as CSV: numbers are numbers with all their digits, and no cell is a formula.
const FORMULA = /^[=+\-@\t\r]/;
const INTERNAL = new Set(["id", "link", "kind", "alone", "scoring", "slope", "row", "place"]); // of charts, not of readers

function csvCell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = Array.isArray(value) ? value.join(" ") : String(value);
  const safe = FORMULA.test(text) ? `'${text}` : text; // a spreadsheet would compute it
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csvText(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => !INTERNAL.has(name));
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function download(name, rows) {
  const address = URL.createObjectURL(new Blob(["\ufeff", csvText(rows)], { type: "text/csv;charset=utf-8" }));
  const anchor = el("a", { href: address, download: `${data.experiment}-${name}.csv` });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// `rows` is a list of records, or makes one when it is asked for.
function csvButton(name, rows) {
  const made = () => (typeof rows === "function" ? rows() : rows);
  return el("button", { type: "button", class: "csv", "aria-label": `${name} as CSV`, onclick: () => download(name, made()) }, "CSV");
}

function table(head, body, { caption, csv } = {}) {
  const title = caption || csv ? el("caption", {}, caption || "", " ", csv ? csvButton(...csv) : null) : null;
  const cells = head.map((text) => el("th", { scope: "col" }, text));
  return el("div", { class: "wide" }, el("table", {}, title, el("thead", {}, el("tr", {}, cells)), el("tbody", {}, body)));
}

// What a chart shows: the rows of its data that its filters leave.
function chartRows(name) {
  if (name === "frontier") return shownPoints();
  const found = [];
  const look = (part) => {
    if (!part || typeof part !== "object") return;
    if (part.name === "rows" && Array.isArray(part.values)) found.push(part.values);
    Object.values(part).forEach(look);
  };
  look(data.charts[name]);
  const { scoring } = choice();
  return (found[0] || []).filter((row) => row.scoring === undefined || (scoring === "each" ? row.alone : row.scoring === scoring));
}

function addCsvButtons() {
  for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", () => download(button.dataset.download, data.tables[button.dataset.download]));
  for (const figure of document.querySelectorAll("figure.chart")) {
    const name = figure.id.replace("chart-", "");
    figure.append(csvButton(name, () => chartRows(name)));
  }
  for (const place of document.querySelectorAll("table[data-csv]")) {
    const name = place.dataset.csv, rows = name === "points" ? shownPoints : data.tables[name];
    (place.caption || place.createCaption()).append(" ", csvButton(name, rows));
  }
}
