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
  return { series: [0, 1, 2, 3, 4, 5, 6, 7].map((n) => of(`--c${n}`)), ink: of("--ink"), faint: of("--line"), card: of("--card") };
}

function themed(trace, theme) {
  const colour = theme.series[trace.meta % theme.series.length];
  return {
    ...trace,
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

function draw(figure) {
  const theme = colours(figure);
  const { data, layout } = figure.spec;
  const canvas = figure.querySelector(".canvas");
  const narrow = canvas.clientWidth < 600; // names beside dots would overlap; they are in the table
  const options = { displayModeBar: false, responsive: true, showLink: false };
  const traces = data.map((trace) => ({ ...themed(trace, theme), mode: narrow ? trace.mode.replace("+text", "") : trace.mode }));
  Plotly.react(canvas, traces, laid(layout, theme), options);
}

function start(figure) {
  const spec = (figure.spec = JSON.parse(figure.querySelector("script[type='application/json']").textContent));
  for (const button of figure.querySelectorAll("button[data-series]")) {
    button.addEventListener("click", () => {
      const visible = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(visible));
      spec.data[Number(button.dataset.series)].visible = visible;
      draw(figure);
    });
  }
  const select = figure.querySelector("select");
  select?.addEventListener("change", () => {
    const choice = spec.choices[select.selectedIndex];
    spec.data.forEach((trace, n) => Object.assign(trace, { x: choice.x[n], y: choice.y[n], text: choice.text[n] }));
    spec.layout.xaxis = choice.xaxis;
    draw(figure);
  });
  draw(figure);
}

document.addEventListener("DOMContentLoaded", () => {
  document.documentElement.classList.add("scripted");
  for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sort(button));
  for (const form of document.querySelectorAll("form.filter")) {
    form.addEventListener("input", () => filter(form));
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  const figures = [...document.querySelectorAll("figure.plot")];
  figures.forEach(start);
  dark.addEventListener("change", () => figures.forEach(draw));
});
