"use strict";
// A click on a header sorts: numbers by value, what is empty last.
document.querySelectorAll("th button").forEach(function (button) {
  button.addEventListener("click", function () {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const place = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    head.parentElement.querySelectorAll("th").forEach(function (th) { th.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(body.rows).map(function (row) {
      const text = row.cells[place].textContent, number = text[0] === "<" ? 0 : parseFloat(text);
      return { row: row, text: text, number: number, empty: text === "-" };
    });
    const numeric = rows.every(function (r) { return r.empty || !isNaN(Number(r.text.split(" ")[0].replace("<", ""))); });
    rows.sort(function (a, b) {
      if (a.empty !== b.empty) return a.empty ? 1 : -1;
      const order = numeric ? a.number - b.number : a.text.localeCompare(b.text);
      return down ? -order : order;
    });
    rows.forEach(function (r) { body.appendChild(r.row); });
  });
});
// Words and choices above a table leave the rows that have them all.
document.querySelectorAll(".tools").forEach(function (tools) {
  const rows = Array.from(tools.parentElement.querySelectorAll("tbody tr"));
  const words = tools.querySelector("input"), choices = Array.from(tools.querySelectorAll("select"));
  const count = tools.querySelector("output");
  function show() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    rows.forEach(function (row) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every(function (word) { return text.includes(word); })
        && choices.every(function (choice) {
          return choice.value === "" || row.cells[Number(choice.dataset.column)].textContent === choice.value.slice(1);
        });
      row.hidden = !fits;
      left += fits;
    });
    count.textContent = left + " of " + rows.length + " rows";
  }
  [words].concat(choices).forEach(function (input) { input.addEventListener("input", show); });
  show();
});
// A link to a picture that is folded away unfolds it.
window.addEventListener("hashchange", function () {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = found && found.closest("details");
  if (folded && !folded.open) {
    folded.open = true;
    found.scrollIntoView();
  }
});
