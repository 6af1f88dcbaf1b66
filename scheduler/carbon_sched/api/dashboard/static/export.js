// Every table and chart of a page as a file: what is shown, with the exact figures and their units.
"use strict";
(() => {
  // A figure with all its digits: as a number of JavaScript a large one would lose some.
  class Figure {
    constructor(digits) { this.digits = digits; }
    toString() { return this.digits; }
  }
  const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;

  // The words of a node, each figure in them with all its digits and its unit.
  function text(node) {
    const words = [], walk = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      const figure = walk.currentNode.parentElement.closest("data");
      words.push(figure ? [figure.value, figure.dataset.unit].filter(Boolean).join(" ") : walk.currentNode.data);
    }
    return words.join(" ").trim().replace(/\s+/g, " ");
  }

  // ---- tables ----
  function value(cell) {
    const figures = cell.querySelectorAll("data"), times = cell.querySelectorAll("time");
    if (!figures.length && (cell.querySelector(".unknown") || text(cell) === "-")) return null;
    if (figures.length === 1 && NUMBER.test(figures[0].value) && !cell.querySelector("small")) return new Figure(figures[0].value);
    return times.length === 1 && !figures.length ? times[0].dateTime : text(cell);
  }

  function ofTable(table) {
    const shown = [...table.tHead.rows[0].cells].map((cell, at) => ({ at, name: text(cell) })).filter(({ name }) => name && name !== "Actions");
    const lines = [...table.tBodies, table.tFoot].flatMap((part) => [...(part?.rows || [])]).filter((row) => !row.querySelector("td.empty"));
    const unit = ({ at }) => new Set(lines.map((row) => row.cells[at]?.querySelector("data")?.dataset.unit).filter(Boolean));
    const head = shown.map((column) => { const units = [...unit(column)]; return column.name + (units.length === 1 ? ` (${units[0]})` : ""); });
    return { head, rows: lines.map((row) => shown.map(({ at }) => (row.cells[at] ? value(row.cells[at]) : null))) };
  }

  // ---- charts ----
  const ofCurve = (data) => ({
    head: ["time", ...data.rows.map((row) => row.label + (row.unit || data.unit ? ` (${row.unit || data.unit})` : ""))],
    rows: data.times.map((stamp, at) => [new Date(stamp * 1e3).toISOString(), ...data.rows.map((row) => row.values[at])]),
  });
  const ofGantt = (gantt) => ({
    head: ["cluster", "job", "bar"],
    rows: [...gantt.querySelectorAll(".row")].flatMap((row) => [...row.querySelectorAll("a")].map((bar) =>
      [text(row.previousElementSibling.querySelector("b")), bar.getAttribute("href").split("/").pop(), bar.getAttribute("aria-label")])),
  });

  async function rowsOf(section) {
    const place = section.querySelector("[data-plot]"), gantt = section.querySelector(".gantt"), drawn = section.querySelector("[data-rows]");
    if (place) return ofCurve(await (await fetch(place.dataset.plot)).json());
    if (gantt) return ofGantt(gantt);
    return drawn ? JSON.parse(drawn.dataset.rows) : ofTable(section.querySelector("table"));
  }

  // A spreadsheet must take no cell for a formula.
  const safe = (cell) => (typeof cell === "string" && /^\s*[=+\-@]/.test(cell) && !NUMBER.test(cell) ? "'" + cell : cell ?? "");
  const csv = ({ head, rows }) => [head, ...rows].map((row) => row.map((cell) => `"${String(safe(cell)).replaceAll('"', '""')}"`).join(",")).join("\r\n") + "\r\n";
  const literal = (cell) => (cell instanceof Figure ? cell.digits : JSON.stringify(cell ?? null));
  const line = (head, row) => "{" + head.map((name, at) => `${JSON.stringify(name)}: ${literal(row[at])}`).join(", ") + "}";
  const json = ({ head, rows }) => "[\n" + rows.map((row) => line(head, row)).join(",\n") + "\n]\n";

  // ---- pictures: a copy that needs no style sheet ----
  const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "opacity", "fill-opacity"];

  function copied(svg, width) {
    const copy = svg.cloneNode(true), from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
    from.forEach((node, at) => STYLES.forEach((name) => to[at].setAttribute(name, getComputedStyle(node).getPropertyValue(name))));
    copy.setAttribute("width", width);
    return copy;
  }

  function framed(pieces, width, height) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [name, given] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "sans-serif", "font-size": 12 })) made.setAttribute(name, given);
    made.append(...pieces);
    return new XMLSerializer().serializeToString(made) + "\n";
  }

  function said(words, x, y, fill) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", "text");
    for (const [name, given] of Object.entries({ x, y, fill })) node.setAttribute(name, given);
    node.textContent = words;
    return node;
  }

  function stacked(gantt) {
    const soft = getComputedStyle(gantt).color, left = 160, pieces = [];
    let y = 0;
    for (const row of gantt.querySelectorAll(":scope > .row, :scope > .axis")) {
      const svg = row.querySelector("svg"), copy = copied(svg, svg.clientWidth);
      copy.setAttribute("x", left);
      copy.setAttribute("y", y);
      const name = row.previousElementSibling.querySelector("b");
      if (name) pieces.push(said(text(name), 4, y + svg.clientHeight / 2 + 4, soft));
      pieces.push(copy);
      y += svg.clientHeight + 4;
    }
    return framed(pieces, left + gantt.querySelector(".row svg").clientWidth, y);
  }

  function curved(data, colours) {
    const width = 960, high = 300, { times, rows } = data, span = times.at(-1) - times[0] || 1, pieces = [];
    rows.forEach((row, number) => {
      const mine = rows.filter((other) => Boolean(other.right) === Boolean(row.right)), most = Math.max(1e-9, ...mine.flatMap(({ values }) => values.map((one) => one ?? 0)));
      const at = (stamp) => ((stamp - times[0]) / span * width).toFixed(1), up = (one) => (high * (1 - one / most / 1.06)).toFixed(1);
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      const known = times.map((stamp, k) => [stamp, row.values[k], times[k + 1] ?? stamp]).filter(([, one]) => one != null);
      const steps = known.map(([stamp, one, until], k) => `${k ? "L" : "M"}${at(stamp)} ${up(one)}H${at(until)}`).join("");
      for (const [name, given] of Object.entries({ d: steps, fill: "none", stroke: colours[number % colours.length], "stroke-width": 1.6 })) path.setAttribute(name, given);
      pieces.push(path, said(`${row.label}, at most ${most.toPrecision(4)} ${row.unit || data.unit || ""}`, 8, high + 40 + 16 * number, colours[number % colours.length]));
    });
    for (let k = 0; k <= 6; k++) pieces.push(said(new Date((times[0] + span * k / 6) * 1e3).toISOString().slice(0, 16) + "Z", width * k / 7, high + 16, "#777"));
    return framed(pieces, width, high + 44 + 16 * rows.length);
  }

  async function pictureOf(section) {
    const place = section.querySelector("[data-plot]"), gantt = section.querySelector(".gantt");
    if (place) return curved(await (await fetch(place.dataset.plot)).json(), window.carbonSched.colours());
    if (gantt) return stacked(gantt);
    const svg = section.querySelector("svg.plot");
    return framed([copied(svg, svg.clientWidth)], svg.clientWidth, svg.clientHeight);
  }

  const KINDS = { csv: ["text/csv", async (section) => csv(await rowsOf(section))], json: ["application/json", async (section) => json(await rowsOf(section))], svg: ["image/svg+xml", pictureOf] };

  const KEPT_MS = 60e3;  // a busy machine takes its time to write a file

  async function save(button) {
    const [type, made] = KINDS[button.dataset.export], link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await made(button.closest("section, article"))], { type }));
    link.download = `${button.dataset.name}.${button.dataset.export}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-export]");
    if (button) save(button).catch((error) => window.carbonSched.toast(`It cannot be exported: ${error}`, true));
  });
})();
