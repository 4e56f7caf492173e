"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const list = byId("probes"), cards = byId("cards"), search = byId("search");
  const domain = byId("domain"), outcome = byId("outcome"), repeat = byId("repeat");

  // Every text enters the page through textContent, so that an answer can never act as markup.
  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  const repeats = [...new Set(data.cells.map((cell) => cell.r))].sort((a, b) => a - b);
  const cellsOf = data.probes.map(() => []);
  for (const cell of data.cells) cellsOf[cell.p].push(cell);
  const shownArms = new Set(data.arms.keys());
  const lowered = new Map();
  let visible = [];
  let current = 0;

  function lower(index) {
    if (!lowered.has(index)) lowered.set(index, data.texts[index].toLowerCase());
    return lowered.get(index);
  }

  function isUnscored(cell) {
    return cell.o === "answered" && cell.s.some((score) => score[0] === null);
  }

  function has(cell, kind) {
    if (kind === "truncated") return cell.o === "answered" && cell.f === "length";
    if (kind === "unscored") return isUnscored(cell);
    return cell.o === kind;
  }

  function matches(p) {
    const probe = data.probes[p];
    if (domain.value && probe.domain !== domain.value) return false;
    const cells = shownCells(p);
    if (outcome.value && !cells.some((cell) => has(cell, outcome.value))) return false;
    const wanted = search.value.trim().toLowerCase();
    if (!wanted) return true;
    return (probe.id + " " + probe.domain).toLowerCase().includes(wanted) || lower(probe.t).includes(wanted) ||
      cells.some((cell) => cell.t !== undefined && lower(cell.t).includes(wanted));
  }

  function shownCells(p) {
    const wanted = repeat.value;
    return cellsOf[p].filter((cell) => shownArms.has(cell.a) && (wanted === "" || String(cell.r) === wanted));
  }

  function filter() {
    visible = [...data.probes.keys()].filter(matches);
    list.replaceChildren(...visible.map(option));
    const all = data.probes.length;
    byId("count").textContent = visible.length === all ? all + " probes" : visible.length + " of " + all + " probes";
    if (!visible.includes(current)) current = visible.length ? visible[0] : current;
    show(current, false);
  }

  function option(p) {
    const probe = data.probes[p];
    const item = make("li");
    item.id = "probe-" + p;
    item.setAttribute("role", "option");
    const head = make("span", "head");
    head.append(make("b", "", probe.id), make("span", "quiet", probe.domain));
    item.append(head, make("span", "line", data.texts[probe.t]));
    item.addEventListener("click", () => show(p, false));
    return item;
  }

  function show(p, reveal) {
    const some = visible.length > 0;
    current = p;
    for (const item of list.children) item.setAttribute("aria-selected", String(item.id === "probe-" + p));
    const selected = some ? byId("probe-" + p) : null;
    if (selected) {
      list.setAttribute("aria-activedescendant", selected.id);
      if (selected.offsetTop < list.scrollTop || selected.offsetTop + selected.offsetHeight > list.scrollTop + list.clientHeight) {
        list.scrollTop = selected.offsetTop - list.clientHeight / 3;
      }
    } else {
      list.removeAttribute("aria-activedescendant");
    }
    const place = visible.indexOf(p);
    byId("previous").disabled = !some || place <= 0;
    byId("next").disabled = !some || place === visible.length - 1;
    const title = byId("probe-title"), prompt = byId("prompt");
    if (!some) {
      title.textContent = data.probes.length ? "No probe matches these filters." : "This run has no probes.";
      prompt.textContent = "";
      cards.replaceChildren();
      return;
    }
    const probe = data.probes[p];
    title.replaceChildren(document.createTextNode(probe.id + " "), make("span", "quiet", probe.domain));
    prompt.textContent = data.texts[probe.t];
    const cells = shownCells(p).sort((a, b) => a.a - b.a || a.r - b.r);
    cards.replaceChildren(...cells.map(card));
    if (!cells.length) cards.append(make("p", "quiet", "No arm is chosen."));
    if (reveal) bringToTop(byId("probe"));
  }

  // After a step, a reader who is deep in one answer sees the next one from its start; others stay where they are.
  function bringToTop(node) {
    const box = node.getBoundingClientRect();
    if (box.top < 0 && box.bottom > 0) node.scrollIntoView({ block: "start" });
  }

  function format(value, signed) {
    const text = (Math.round(value * 100) / 100 + 0).toFixed(2);
    return signed && Number(text) > 0 ? "+" + text : text;
  }

  function reference(cell) {
    if (data.baseline === null || cell.a === data.baseline) return null;
    return cellsOf[cell.p].find((other) => other.a === data.baseline && other.r === cell.r && other.o === "answered") || null;
  }

  function card(cell) {
    const node = make("section", "card");
    const name = data.arms[cell.a] + (repeats.length > 1 ? " · repeat " + cell.r : "");
    node.setAttribute("aria-label", name);
    const head = make("header");
    head.append(make("h4", "", name));
    const base = reference(cell);
    if (cell.o === "answered" && data.scorers.length) {
      head.append(scoreLine(cell, base));
    }
    node.append(head, badges(cell, base));
    if (cell.o === "answered") {
      const parts = [cell.w + (cell.w === 1 ? " word" : " words")];
      if (cell.n !== undefined) parts.push(cell.n + " tokens");
      node.append(make("p", "meta", parts.join(", ")));
      const text = data.texts[cell.t];
      node.append(text.trim() ? make("div", "text", text) : make("div", "text none", "(empty answer)"));
    } else if (cell.o === "failed") {
      node.append(make("div", "text none", "The request failed: " + cell.e));
    } else {
      node.append(make("div", "text none", "Planned, and not stored."));
    }
    if (cell.k !== undefined) node.append(folded("Thinking", [make("div", "text", data.texts[cell.k])]));
    if (cell.o === "answered" && data.scorers.some((_, i) => cell.s[i][2].length || cell.s[i][1])) node.append(signals(cell));
    if (cell.m && cell.m.length) {
      node.append(folded("Messages sent", cell.m.flatMap(([role, parts]) => [
        make("p", "role", role), make("div", "text", parts.map((i) => data.texts[i]).join("")),
      ])));
    }
    return node;
  }

  function scoreLine(cell, base) {
    const node = make("span", "score");
    const value = cell.s[0][0];
    node.append(make("span", "quiet", data.scorers[0].name + " "));
    if (value === null) {
      node.append(make("span", "quiet", "unscored"));
      return node;
    }
    node.append(make("b", "", format(value, false)));
    const theirs = base ? base.s[0][0] : null;
    if (theirs !== null) {
      const change = value - theirs;
      node.append(" ", make("small", change > 0 ? "better" : change < 0 ? "worse" : "", format(change, true)));
    }
    return node;
  }

  function badges(cell, base) {
    const node = make("div", "badges");
    if (cell.o === "failed") node.append(make("span", "badge bad", "failed"));
    if (cell.o === "missing") node.append(make("span", "badge bad", "missing"));
    if (has(cell, "truncated")) node.append(make("span", "badge warn", "truncated"));
    if (isUnscored(cell)) {
      const which = data.scorers.filter((_, i) => cell.s[i][0] === null).map((scorer) => scorer.name);
      const all = which.length === data.scorers.length;
      node.append(make("span", "badge warn", all ? "unscored" : "unscored by " + which.join(", ")));
    }
    if (base && cell.o === "answered" && base.t === cell.t) node.append(make("span", "badge", "same text as " + data.arms[data.baseline]));
    return node;
  }

  function signals(cell) {
    const parts = [];
    data.scorers.forEach((scorer, i) => {
      const [value, reason, counts] = cell.s[i];
      const line = make("p", "role", scorer.name + (value === null ? ": unscored" : " " + format(value, false)));
      if (reason) line.append(", " + reason);
      parts.push(line);
      const body = make("tbody");
      counts.forEach((count, j) => {
        if (!count) return;
        const row = make("tr"), name = make("th", "", scorer.signals[j].replaceAll("_", " "));
        name.scope = "row";
        row.append(name, make("td", "num", String(count)));
        body.append(row);
      });
      if (body.children.length) {
        const table = make("table");
        table.append(body);
        parts.push(table);
      } else if (counts.length) {
        parts.push(make("p", "meta", "no signal found"));
      }
    });
    return folded("Scores and signals", parts);
  }

  function folded(title, children) {
    const node = make("details");
    node.append(make("summary", "", title), ...children);
    return node;
  }

  function step(by) {
    const place = visible.indexOf(current) + by;
    if (visible.length && place >= 0 && place < visible.length) show(visible[place], true);
  }

  for (const name of [...new Set(data.probes.map((probe) => probe.domain))].filter(Boolean)) {
    const choice = make("option", "", name);
    choice.value = name;
    domain.append(choice);
  }
  domain.parentNode.hidden = domain.options.length < 2;
  if (repeats.length > 1) {
    byId("repeat-label").hidden = false;
    const every = make("option", "", "all repeats");
    every.value = "";
    repeat.append(every, ...repeats.map((r) => { const choice = make("option", "", String(r)); choice.value = r; return choice; }));
    repeat.value = String(repeats[0]);
  }
  data.arms.forEach((name, a) => {
    const label = make("label"), box = make("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => { box.checked ? shownArms.add(a) : shownArms.delete(a); filter(); });
    label.append(box, name);
    byId("arms").append(label);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", filter);
  for (const control of [domain, outcome, repeat]) control.addEventListener("change", filter);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest && event.target.closest("input, select, textarea, .scroll")) return;
    const inList = event.target === list;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: inList ? -1 : 0, ArrowDown: inList ? 1 : 0 }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  });
  filter();
})();
