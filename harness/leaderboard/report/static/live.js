// The report of a running evaluation: shows what runs, and loads the page again when there is a new report.
"use strict";

(() => {
  const EVERY_MS = 2000;
  let version = null;

  function element(name, text, more = {}) {
    const made = Object.assign(document.createElement(name), more);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function bar(done, total, label) {
    const made = element("progress", undefined, { max: total || 1, value: Math.min(done, total || 1) });
    made.setAttribute("aria-label", label);
    return made;
  }

  function show(place, found) {
    place.replaceChildren();
    const said = found.runs.length ? "Running" : "Nothing is running, and no run lacks cells";
    place.append(element("p", said, { className: "lead" }));
    for (const run of found.runs) {
      const line = element("p");
      line.append(element("strong", run.entry), ` ${run.finished} of ${run.planned || "?"} cells `, bar(run.finished, run.planned, `cells of ${run.entry}`));
      line.append(run.left ? ` ${run.left} left` : "", run.last ? `; last: ${run.last}` : "");
      place.append(line);
      const list = element("ul", undefined, { className: "plain" });
      for (const cell of run.open) {
        const item = element("li", `${cell.name}: ${cell.calls} of ${cell.budget} calls `);
        item.append(bar(cell.done, cell.total, `calls of ${cell.name}`), ` ${cell.rate} calls/s${cell.left ? `, ${cell.left} left` : ""}`);
        list.append(item);
      }
      if (run.open.length) place.append(list);
    }
    place.append(element("p", `Looked at ${found.at}. The report is of ${found.built}; it is made anew when cells have ended.`, { className: "note" }));
  }

  async function ask() {
    const place = document.getElementById("live");
    try {
      const answer = await fetch("/live.json", { cache: "no-store" });
      const found = await answer.json();
      show(place, found);
      const busy = document.activeElement?.matches("input, select"); // a reload would take away what is being typed
      if (version !== null && found.version !== version && !busy) location.reload();
      version ??= found.version;
    } catch {
      place.replaceChildren(element("p", "The server does not answer: harness watch --web was ended. This page stays as it is.", { className: "bad" }));
    }
    setTimeout(ask, EVERY_MS);
  }

  document.addEventListener("DOMContentLoaded", ask);
})();
