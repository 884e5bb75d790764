"use strict";
const said = document.getElementById("said"), table = document.getElementById("cells");
document.getElementById("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  said.textContent = "asking";
  table.hidden = true;
  try {
    const token = document.getElementById("token").value.trim();
    const reply = await fetch("v1/me", { headers: { Authorization: "Bearer " + token, Accept: "application/json" } });
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.message || String(reply.status));
    said.textContent = found.token + (found.scores_shown ? "" : ": scores are shown by the organiser when the competition is over");
    const body = table.tBodies[0];
    body.replaceChildren();
    for (const cell of found.cells) {
      const row = body.insertRow();
      const text = (value, number) => {
        const made = row.insertCell();
        made.textContent = value;
        if (number) made.className = "number";
      };
      text(cell.task + "/" + cell.split);
      const meter = document.createElement("meter");
      meter.max = cell.rows_total;
      meter.value = cell.rows_spent;
      meter.setAttribute("aria-label", "share of the budget that is spent");
      row.insertCell().append(meter);
      for (const value of [cell.rows_spent, cell.rows_total, cell.queries]) text(value.toLocaleString("en"), true);
      text(cell.seconds.toFixed(1), true);
      text(cell.answer);
      text(cell.score === null ? "" : (100 * cell.score).toFixed(1), true);
    }
    table.hidden = false;
  } catch (problem) {
    said.textContent = problem.message;
  }
});
