// Sorting, filtering and plots of the report. Every page can be read without this script; tables are then static.
"use strict";

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function announce(text) {
  document.getElementById("said").textContent = text;
}

// Sortable tables: a header is a button, and the order is given by aria-sort and announced.
function value(row, column) {
  const cell = row.cells[column];
  const given = cell.dataset.v ?? cell.textContent.trim();
  const number = given === "" ? NaN : Number(given);
  return Number.isNaN(number) ? given.toLowerCase() : number;
}

function compare(a, b, sign) {
  if (a === "" || b === "") return (a === "") - (b === ""); // missing values stay last
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b));
}

function sort(button) {
  const header = button.closest("th");
  const table = header.closest("table");
  const down = header.getAttribute("aria-sort")
    ? header.getAttribute("aria-sort") === "ascending"
    : button.dataset.first === "descending";
  for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row, header.cellIndex), row]);
  rows.sort((a, b) => compare(a[0], b[0], down ? -1 : 1));
  body.append(...rows.map((pair) => pair[1]));
  announce(`sorted by ${button.textContent.trim()}, ${down ? "highest" : "lowest"} first`);
}

// The ranking's filter: by name and by access level.
function filter(form) {
  const table = document.getElementById(form.dataset.table);
  const wanted = form.querySelector("input[type=search]").value.trim().toLowerCase();
  const level = form.querySelector("select").value;
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const fits = row.dataset.name.includes(wanted) && (!level || row.dataset.access === level);
    row.hidden = !fits;
    shown += fits;
  }
  form.querySelector("output").textContent = `${shown} of ${table.tBodies[0].rows.length} shown`;
}

// Plots: the data are in the page as JSON, the colours in the style sheet.
function colours(figure) {
  const styles = getComputedStyle(figure);
  const of = (name) => styles.getPropertyValue(name).trim();
  const series = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => of(`--c${n}`));
  return { series, ink: of("--ink"), soft: of("--soft"), faint: of("--line"), card: of("--card") };
}

function coloured(number, theme) {
  return number < 0 ? theme.soft : theme.series[number % theme.series.length];
}

function faded(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},0.11)`;
}

function themed(trace, theme) {
  const colour = coloured(trace.meta.colour, theme);
  if (trace.meta.band) return { ...trace, fillcolor: faded(colour), line: { ...trace.line, color: colour } };
  return {
    ...trace,
    opacity: trace.meta.series < 0 ? 0.6 : 1,
    line: { ...trace.line, color: colour },
    marker: { ...trace.marker, color: colour },
    error_y: { ...trace.error_y, color: colour },
    textfont: { color: theme.ink, size: 12 },
  };
}

function laid(layout, theme) {
  const axis = { gridcolor: theme.faint, linecolor: theme.faint, zeroline: false, automargin: true };
  return {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: theme.ink, family: "system-ui, sans-serif", size: 13 },
    margin: { t: 16, r: 16, b: 56, l: 56 },
    showlegend: false,
    dragmode: false,
    hoverlabel: { bgcolor: theme.card, font: { color: theme.ink } },
    xaxis: { ...axis, ...layout.xaxis, fixedrange: true },
    yaxis: { ...axis, ...layout.yaxis, fixedrange: true },
  };
}

// Labels at the ends of lines: those that are shown, moved apart, in the room right of the plot.
const GAP = 16;

function apart(places, low, high) {
  const order = places.map((_, n) => n).sort((a, b) => places[a] - places[b]);
  const moved = order.map((n) => Math.min(Math.max(places[n], low), high));
  for (let n = 1; n < moved.length; n++) moved[n] = Math.max(moved[n], moved[n - 1] + GAP);
  if (moved.length) moved[moved.length - 1] = Math.min(moved[moved.length - 1], high);
  for (let n = moved.length - 2; n >= 0; n--) moved[n] = Math.min(moved[n], moved[n + 1] - GAP);
  const found = [];
  order.forEach((n, place) => (found[n] = moved[place]));
  return found;
}

function labelled(layout, data, theme, height, narrow) {
  if (!layout.annotations) return layout;
  const shown = new Map(data.filter((t) => !t.meta.band && (t.visible ?? true)).map((t) => [String(t.meta.series), t.meta.colour]));
  const notes = layout.annotations.filter((note) => shown.has(note.name));
  const values = data.filter((t) => t.visible ?? true).flatMap((t) => t.y.filter((y) => y !== null));
  const ends = [Math.min(...values), Math.max(...values)];
  const margin = 0.05 * (ends[1] - ends[0] || 1);
  const [low, high] = layout.yaxis.range ?? [ends[0] - margin, ends[1] + margin];
  const room = height - layout.margin.t - layout.margin.b;
  const pixels = apart(notes.map((note) => ((note.y - low) / (high - low)) * room), 0, room);
  const longest = narrow ? 11 : 24;
  const cut = (text) => (text.length > longest ? `${text.slice(0, longest - 1)}…` : text);
  const annotations = notes.map((note, n) => ({
    ...note,
    text: narrow ? cut(note.text) : note.text,
    yref: "paper",
    y: pixels[n] / room,
    yanchor: "middle",
    font: { size: narrow ? 11 : 12, color: coloured(shown.get(note.name), theme) },
  }));
  const widest = Math.max(0, ...annotations.map((note) => note.text.replace(/&[a-z]+;/g, "x").length));
  return { ...layout, annotations, yaxis: { ...layout.yaxis, range: [low, high] }, margin: { ...layout.margin, r: 18 + widest * (narrow ? 6.2 : 7) } };
}

function draw(figure) {
  const theme = colours(figure);
  const { data, layout } = figure.spec;
  const canvas = figure.querySelector(".canvas");
  const narrow = canvas.clientWidth < 600; // names beside dots would overlap; they are in the table
  const options = { displayModeBar: false, responsive: true, showLink: false };
  const traces = data.map((trace) => ({ ...themed(trace, theme), mode: narrow ? trace.mode.replace("+text", "") : trace.mode }));
  Plotly.react(canvas, traces, labelled(laid(layout, theme), data, theme, canvas.clientHeight, narrow), options);
}

function choose(box) {
  const group = box.closest("figure").dataset.group;
  const figures = group ? document.querySelectorAll(`figure[data-group="${group}"]`) : [box.closest("figure")];
  for (const figure of figures) {
    for (const trace of figure.spec.data) if (trace.meta.series === Number(box.dataset.series)) trace.visible = box.checked;
    draw(figure);
  }
}

function start(figure) {
  const spec = (figure.spec = JSON.parse(figure.querySelector("script[type='application/json']").textContent));
  for (const box of figure.querySelectorAll("input[data-series]")) box.addEventListener("change", () => choose(box));
  const select = figure.querySelector("select");
  select?.addEventListener("change", () => {
    const choice = spec.choices[select.selectedIndex];
    spec.data.forEach((trace, n) => Object.assign(trace, { x: choice.x[n], y: choice.y[n], text: choice.text[n] }));
    spec.layout.xaxis = choice.xaxis;
    draw(figure);
  });
  draw(figure);
}

// The choice of two entries to compare: a matrix on this page has the addresses, or the choice itself.
function pick(form) {
  const link = form.querySelector("a");
  const selects = [...form.querySelectorAll("select")];
  const update = () => {
    if (selects.length === 1) {
      link.href = form.dataset.root + selects[0].value;
      return;
    }
    const [row, column] = selects.map((select) => Number(select.value));
    const field = document.getElementById(form.dataset.first).tBodies[0].rows[row].cells[column + 1].querySelector("a");
    link.toggleAttribute("hidden", !field);
    if (field) link.href = field.getAttribute("href");
  };
  form.addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
}

document.addEventListener("DOMContentLoaded", () => {
  document.documentElement.classList.add("scripted");
  for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sort(button));
  for (const form of document.querySelectorAll("form.filter")) {
    form.addEventListener("input", () => filter(form));
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  document.querySelectorAll("form.pick").forEach(pick);
  const figures = [...document.querySelectorAll("figure.plot")];
  figures.forEach(start);
  dark.addEventListener("change", () => figures.forEach(draw));
});
