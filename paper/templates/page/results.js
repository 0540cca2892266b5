"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLUMNS = [
  ["id", "Id"], ["title", "Change"], ["section", "Part"], ["text", "Text (KL)", true], ["retrieval", "Retrieval (answer NLL)", true],
  ["speedup", "Speed-up", true], ["relative", "Against comparator", true], ["outcomes", "Outcome"], ["status", "Ended"],
];
const state = { key: null, falling: false, open: decodeURIComponent(location.hash.slice(1)) };
for (const [key, value] of new URLSearchParams(location.search)) {
  if (key === "sort") { state.falling = value.startsWith("-"); state.key = value.replace(/^-/, ""); }
  else if (document.getElementById(key)) document.getElementById(key).value = value;
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function sortKey(row) {
  const value = row[state.key];
  if (Array.isArray(value)) return value.join(" ");
  return value && typeof value === "object" ? value.value : value;
}

function compare(one, other) {
  const [a, b] = [sortKey(one), sortKey(other)];
  const missing = value => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return missing(a) - missing(b);  // always last
  const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return state.falling ? -order : order;
}

function shown() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const method = document.getElementById("method").value;
  const rows = data.rows.filter(row =>
    (!method || row.method === method) &&
    words.every(word => `${row.id} ${row.title} ${row.section} ${row.hypothesis}`.toLowerCase().includes(word)));
  return state.key ? [...rows].sort(compare) : rows;
}

function cell(row, key, number) {
  const value = row[key];
  if (number) {
    const made = element("td", { class: "number" }, value ? value.text : "\u2014");
    if (value && value.interval) made.append(element("span", { class: "interval" }, value.interval));
    return made;
  }
  if (key === "outcomes") return element("td", {}, ...value.map(word => element("span", { class: "outcome" }, word)));
  if (key === "id") return element("td", {}, element("button", { "aria-expanded": state.open === row.id }, value));
  return element("td", {}, value || "\u2014");
}

function table(columns, rows) {
  const numeric = columns.map((_, place) => rows.every(row => row[place] === null || typeof row[place] === "number"));
  const kind = place => ({ class: numeric[place] ? "number" : "" });
  const head = columns.map((name, place) => element("th", kind(place), name));
  const body = rows.map(row => element("tr", {}, ...row.map((value, place) =>
    element("td", kind(place), value === null ? "\u2014" : String(value)))));
  return element("div", { class: "scroll" },
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)));
}

function details(row) {
  const found = [];
  const part = (title, content) => found.push(element("h2", {}, title), content);
  if (row.hypothesis) part("Hypothesis", element("p", {}, row.hypothesis));
  if (row.expected) part("Expected", element("p", {}, row.expected + (row.versus ? ` (against ${row.versus})` : "")));
  if (row.parts.length) part("Predictions", element("p", {}, row.parts.join("; ")));
  if (row.crash) part("Crash", element("pre", {}, row.crash));
  if (row.change) part("Change of the baseline, as configured", element("pre", {}, row.change));
  if (row.differences.length) part(`Spec against ${row.versus}`, table(["key", row.versus, row.id], row.differences));
  if (row.numbers.length) part("Numbers", table(["name", "value", "interval", "unit", "from the record's"], row.numbers));
  if (row.prompts.rows.length) part("Per prompt", table(row.prompts.columns, row.prompts.rows));
  part("Records", table(["record", "sha256", "device", "commit", "measured at"], row.records.map(file =>
    [file.path, file.sha256 || "missing", file.device, file.commit && file.commit.slice(0, 12) + (file.dirty ? " (edited)" : ""), file.measured_at])));
  const log = row.logs.map(path => `${path}\n${data.logs[path]}`).join("\n\n");
  part("Log", element("pre", { class: "log" }, log || "No log in this folder."));
  return element("tr", { class: "details" }, element("td", { colspan: COLUMNS.length }, ...found));
}

function draw() {
  const rows = shown();
  document.querySelector("#matrix thead").replaceChildren(element("tr", {}, ...COLUMNS.map(([key, name, number]) => {
    const sort = state.key === key ? (state.falling ? "descending" : "ascending") : "none";
    const button = element("button", {}, name);
    button.addEventListener("click", () => { state.falling = state.key === key && !state.falling; state.key = key; draw(); });
    return element("th", { class: number ? "number" : "", "aria-sort": sort, scope: "col" }, button);
  })));
  const body = [];
  for (const row of rows) {
    const line = element("tr", { class: "experiment" + (state.open === row.id ? " open" : ""), id: row.id },
      ...COLUMNS.map(([key, , number]) => cell(row, key, number)));
    line.addEventListener("click", () => {
      state.open = state.open === row.id ? "" : row.id;
      history.replaceState(null, "", state.open ? `#${state.open}` : location.pathname + location.search);
      draw();
    });
    body.push(line);
    if (state.open === row.id) body.push(details(row));
  }
  document.querySelector("#matrix tbody").replaceChildren(...body);
  document.getElementById("count").textContent = `${rows.length} of ${data.rows.length} experiments`;
}

document.querySelector(".about").textContent =
  `${data.decided[0]} of ${data.decided[1]} confirmatory predictions decided. Brackets: unadjusted intervals of ${data.coverage} over documents or prompts. Sort by a column's title; open an experiment by its row.`;
for (const name of ["search", "method"]) document.getElementById(name).addEventListener("input", draw);
draw();
if (state.open && document.getElementById(state.open)) document.getElementById(state.open).scrollIntoView();
