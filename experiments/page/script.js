"use strict";
// Tables sort by the heads of their columns, by click or by keyboard. Without scripts they keep their order.
(() => {
  const units = { "": 1, "%": 1, "µs": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, days: 86400 };
  const number = /^([-−]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s*(%|µs|ms|s|min|h|days)?$/;

  const keyOf = (cell) => {
    if (cell.dataset.key !== undefined) return Number(cell.dataset.key);
    const text = cell.textContent.trim();
    const found = number.exec(text);
    if (found) return Number(found[1].replaceAll(",", "").replace("−", "-")) * units[found[2] ?? ""];
    return text === "—" ? "" : text;
  };

  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  };

  const sort = (table, rows, column, order) => {
    const lines = rows.map((row) => ({ row, key: keyOf(row.cells[column]) }));
    const sign = order === "descending" ? -1 : 1;
    if (order !== "none")
      lines.sort((a, b) => (a.key === "" || b.key === "" ? (a.key === "") - (b.key === "") : sign * compare(a.key, b.key)));
    table.tBodies[0].append(...lines.map((line) => line.row));
  };

  for (const table of document.querySelectorAll("table")) {
    const rows = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      const first = head.dataset.first ?? "ascending";
      const orders = [first, first === "ascending" ? "descending" : "ascending", "none"];
      button.addEventListener("click", () => {
        const order = orders[(orders.indexOf(head.getAttribute("aria-sort")) + 1) % orders.length];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", order);
        sort(table, rows, column, order);
        document.getElementById("said").textContent =
          order === "none" ? "In the first order" : `Sorted by ${head.textContent.trim()}, ${order}`;
      });
    });
  }

  // What scrolls sideways can be reached by keyboard.
  const reachable = new ResizeObserver(() => {
    for (const box of document.querySelectorAll(".scroll"))
      box.scrollWidth > box.clientWidth ? (box.tabIndex = 0) : box.removeAttribute("tabindex");
  });
  for (const content of document.querySelectorAll(".scroll > *")) reachable.observe(content);

  // A link to a place inside a closed box opens the box.
  const reveal = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");
  addEventListener("hashchange", reveal);
  reveal();
})();
