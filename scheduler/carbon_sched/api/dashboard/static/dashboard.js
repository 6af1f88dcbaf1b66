// What pages do beside htmx: live curves, actions with the session's token, colours, and the sign that news arrive.
"use strict";
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const toasts = document.getElementById("toasts");

  function toast(text, bad) {
    const made = document.createElement("div");
    made.className = bad ? "toast bad" : "toast";
    made.textContent = text;
    toasts.append(made);
    setTimeout(() => made.remove(), bad ? 12000 : 5000);
  }

  // ---- actions: a form says what to call; its fields are the JSON body ----
  async function act(form) {
    if (form.dataset.ask && !confirm(form.dataset.ask)) return;
    const [method, path] = form.dataset.call.split(" ");
    const zoned = (name, value) => (form.elements[name].type === "datetime-local" ? value.slice(0, 16) + ":00Z" : value);
    const fields = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, zoned(name, value)]));
    const headers = { "X-CSRF-Token": document.body.dataset.csrf };
    const body = Object.keys(fields).length ? JSON.stringify(fields) : undefined;
    if (body) headers["Content-Type"] = "application/json";
    const answer = await fetch(path, { method, headers, body });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
      toast(problem.detail, true);
    } else if (form.dataset.then) location.assign(form.dataset.then);
    else {
      if (form.popover) form.hidePopover();
      toast(form.dataset.done || "Done");
      htmx.ajax("GET", location.pathname + location.search, { target: "#moving", swap: "morph:innerHTML" });
    }
  }
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.call) {
      event.preventDefault();
      act(form).catch((error) => toast(String(error), true));
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.closest("form[data-at-once]")) event.target.form.requestSubmit();
  });

  // ---- live curves: a place names where its data are; they are asked for again when news arrive ----
  const COLOURS = ["--s1", "--s3", "--s4", "--s5", "--s6", "--s2", "--t4", "--t0", "--t6", "--soft"];
  const plots = new Map();
  window.carbonSched = { toast, colours: () => COLOURS.map(css) };

  function options(place, data) {
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px Inter, system-ui, sans-serif" };
    const right = data.rows.some((row) => row.right);
    const scales = { x: { time: true }, y: { range: (_, low, high) => [Math.min(0, low || 0), (high || 1) * 1.06] } };
    const axes = [{ ...axis, values: (_, marks) => marks.map(moment) }, { ...axis, size: 52, values: (_, marks) => marks.map(short) }];
    if (right) {
      scales.right = { range: (_, low, high) => [0, (high || 1) * 1.06] };
      axes.push({ ...axis, scale: "right", side: 1, size: 52, grid: { show: false }, values: (_, marks) => marks.map(short) });
    }
    const stepped = uPlot.paths.stepped({ align: 1 });
    const series = data.rows.map((row, number) => ({
      label: row.label + (row.unit ? ", " + row.unit : ""), scale: row.right ? "right" : "y", width: row.right ? 1.4 : 1.8,
      stroke: css(COLOURS[number % COLOURS.length]), dash: row.right ? [4, 4] : undefined, spanGaps: false, points: { show: false },
      fill: row.fill ? css(COLOURS[number % COLOURS.length]) + "22" : undefined, paths: data.step ? stepped : undefined,
      value: (_, value) => (value == null ? "-" : short(value)),
    }));
    return {
      width: place.clientWidth - 26, height: Number(place.dataset.height) || 260, tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1e3), "Etc/UTC"),
      scales, axes, cursor: { points: { size: 6 } }, legend: { live: data.rows.length <= 12, show: data.rows.length <= 24 },
      series: [{ value: (_, stamp) => (stamp == null ? "-" : new Date(stamp * 1e3).toISOString().slice(5, 16).replace("T", " ")) }, ...series],
    };
  }
  const short = (value) => (Math.abs(value) >= 1000 ? (value / 1000).toFixed(1) + "k" : Math.abs(value) >= 10 ? value.toFixed(0) : value.toPrecision(2));

  function moment(stamp) {
    const text = new Date(stamp * 1e3).toISOString();
    return text.slice(11, 16) === "00:00" ? text.slice(5, 10) : text.slice(11, 16);
  }

  async function draw(place) {
    const answer = await fetch(place.dataset.plot);
    if (!answer.ok) return;
    const data = await answer.json();
    const columns = [data.times, ...data.rows.map((row) => row.values)];
    const known = plots.get(place), shape = data.rows.map((row) => row.label).join();
    if (known && known.shape === shape) known.plot.setData(columns);
    else {
      if (known) known.plot.destroy();
      place.replaceChildren();
      if (!data.times.length) place.textContent = data.empty || "Nothing to draw yet.";
      else plots.set(place, { plot: new uPlot(options(place, data), columns, place), shape });
    }
  }
  const drawAll = (again) => document.querySelectorAll("[data-plot]").forEach((place) => {
    if (again && plots.has(place)) { plots.get(place).plot.destroy(); plots.delete(place); }
    draw(place).catch((error) => { place.textContent = String(error); });
  });
  let due = 0;
  function redrawSoon() {
    clearTimeout(due);
    due = setTimeout(() => drawAll(false), 400);
  }

  // A curve that is drawn, and a form that somebody fills in, stay as they are while the page around them is brought up to date.
  const filling = () => document.activeElement?.closest("input, select") && document.activeElement.form;
  const busy = (node) => node.hasAttribute("data-plot") || node === filling();
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => !(node instanceof Element && busy(node));

  // ---- frame ----
  const THEMES = ["", "light", "dark"];
  document.getElementById("theme")?.addEventListener("click", () => {
    const root = document.documentElement, next = THEMES[(THEMES.indexOf(root.dataset.theme || "") + 1) % THEMES.length];
    if (next) root.dataset.theme = next; else delete root.dataset.theme;
    if (next) localStorage.setItem("theme", next); else localStorage.removeItem("theme");
    toast("Colours: " + (next || "as the system"));
    drawAll(true);
  });
  const live = document.getElementById("live-state");
  const say = (on) => { live.classList.toggle("on", on); live.lastElementChild.textContent = on ? "Live" : "Reconnecting"; };
  document.body.addEventListener("htmx:sseOpen", () => say(true));
  document.body.addEventListener("htmx:sseError", () => say(false));
  document.body.addEventListener("htmx:afterSettle", (event) => { if (event.detail.target.id === "moving") redrawSoon(); });
  addEventListener("resize", () => plots.forEach(({ plot }, place) => plot.setSize({ width: place.clientWidth - 26, height: plot.height })));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  drawAll(false);
})();
