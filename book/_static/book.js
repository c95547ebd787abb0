// What the pages do beyond being read; without this script they say the same.

// Paper is white: a page in dark mode prints in light.
matchMedia("print").addEventListener("change", ({ matches }) => {
  const look = document.documentElement.dataset;
  if (matches) look.screen = look.theme;
  look.theme = matches ? "light" : look.screen;
});

// Tables whose columns hold figures sort by a button in each heading: upwards, downwards, as they were.

// what a cell says, "" for a dash as well
const said = cell => cell.textContent.trim().replace(/^[-\u2013\u2014]$/, "");

// "5.3 [5.2, 5.4]" counts as 5.3, "1,234" as 1234, "6-6.5" as 6; null where a cell begins with no number
function figure(cell) {
  const found = said(cell).match(/^([-+\u2212]?)(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?/i);
  if (!found) return null;
  return Number(("+".includes(found[1]) ? "" : "-") + found[2].replaceAll(",", "") + (found[3] || ""));
}

function sortable(table) {
  if (!table.tHead || table.tHead.rows.length !== 1 || table.tBodies.length !== 1) return;
  const heads = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const plain = [...table.rows].every(row => row.cells.length === heads.length
    && [...row.cells].every(cell => cell.colSpan === 1 && cell.rowSpan === 1));
  if (rows.length < 3 || !plain) return;
  const column = place => rows.map(row => row.cells[place]).filter(said);
  const figures = heads.map((_, place) => column(place).length > 1 && column(place).every(cell => figure(cell) !== null));
  if (!figures.some(Boolean)) return;

  heads.forEach((head, place) => {
    if (!head.textContent.trim()) return;
    const label = head.querySelector("p") || head, button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...label.childNodes);
    label.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const compared = (a, b) => {
        const [one, two] = [a.cells[place], b.cells[place]], [x, y] = [one, two].map(said);
        if (!x || !y) return !x - !y;  // empty cells last, whichever way
        return sign * (figures[place] ? figure(one) - figure(two) : x.localeCompare(y, "en", { numeric: true }));
      };
      table.tBodies[0].append(...(order ? [...rows].sort(compared) : rows));
    });
  });
}

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".bd-article table").forEach(sortable));
