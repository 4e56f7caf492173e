  function reference(p, a, r) {
    if (data.baseline === null || a === data.baseline) return null;
    const place = placeOf(p, data.baseline, r);
    return isAnswered(place) ? place : null;
  }

  function cardsOf(p, { texts, probe }) {
    const R = data.repeats.length, details = new Map(probe.c.map((cell) => [cell.i, cell])), nodes = [];
    for (const a of [...shownArms].sort((x, y) => x - y)) {
      for (const r of shownRepeats()) {
        const place = placeOf(p, a, r), code = data.outcomes[place];
        if (code === "-") continue;
        const base = data.baseline === null ? null : details.get(data.baseline * R + r);
        nodes.push(card({ p, a, r, place, code, cell: details.get(a * R + r) || {}, base, texts }));
      }
    }
    return nodes;
  }

  function card(at) {
    const { a, r, code, cell, texts } = at, node = make("section", "card");
    const name = data.arms[a] + (data.repeats.length > 1 ? " · repeat " + data.repeats[r] : "");
    node.setAttribute("aria-label", name);
    const head = make("header");
    head.append(make("h4", "", name));
    if (isAnswered(at.place) && data.metrics.length) head.append(scoreLine(at));
    node.append(head, badges(at));
    if (cell.l) node.append(...choiceTable(cell.l, texts));
    else if (isAnswered(at.place)) node.append(...answer(cell, texts));
    else if (code === "f") node.append(make("div", "text none", "The request failed: " + cell.e));
    else node.append(make("div", "text none", "Planned, and not stored."));
    if (cell.k !== undefined) node.append(folded("Thinking", [longText(texts[cell.k], "Thinking of " + name)]));
    if (isAnswered(at.place) && cell.s.some((score) => score.length)) node.append(signalTables(at));
    if (cell.m && cell.m.length) {
      node.append(folded("Messages sent", cell.m.flatMap(([role, parts]) => [
        make("p", "role", role), longText(parts.map((i) => texts[i]).join(""), "Message of " + role + " to " + name),
      ])));
    }
    return node;
  }

  function answer(cell, texts) {
    const size = [counted(cell.w, "word")], text = texts[cell.t];
    if (cell.n !== undefined) size.push(counted(cell.n, "token"));
    const meta = make("p", "meta", size.join(", "));
    if (!text.trim()) return [meta, make("div", "text none", "(empty answer)")];
    if (!markedBy.value) return [meta, make("div", "text", text)];
    const { body, counts } = marked(text);
    return [meta, markedLine(counts), body];
  }

  // Measured choices: the likeliest one stands out, and those that the item calls correct say so.
  function choiceTable(rows, texts) {
    const table = make("table", "choices"), head = make("tr"), body = make("tbody"), top = Math.max(...rows.map((row) => row[1]));
    for (const [name, className] of [["Choice", ""], ["log p", "num"], ["tokens", "num"]]) {
      const cell = make("th", className, name);
      cell.scope = "col";
      head.append(cell);
    }
    const thead = make("thead");
    thead.append(head);
    table.append(make("caption", "hidden", "Log-likelihood of each choice, in nats"), thead, body);
    for (const [text, value, tokens, right] of rows) {
      const row = make("tr", value === top ? "top" : ""), name = make("th", "", texts[text]);
      name.scope = "row";
      if (right) name.append(" ", make("span", "badge", "correct"));
      if (value === top) name.append(" ", make("span", "badge", "likeliest"));
      row.append(name, make("td", "num", format(value, false)), make("td", "num", String(tokens)));
      body.append(row);
    }
    return [make("p", "meta", counted(rows.length, "choice") + ", measured"), table];
  }

  // The chosen metric, or the first that applies to this answer: a run of several benchmarks has none for all.
  function shownMetric(place) {
    const chosen = Number(metric.value);
    if (data.values[chosen][place] !== "") return chosen;
    const applied = data.values.findIndex((values) => values[place] !== "");
    return applied < 0 ? chosen : applied;
  }

  function scoreLine({ p, a, r, place }) {
    const m = shownMetric(place), node = make("span", "score"), raw = data.values[m][place];
    node.append(make("span", "quiet", data.metrics[m].name + " "));
    if (typeof raw !== "number") {
      node.append(make("span", "quiet", raw === null ? "unscored" : "not applied"));
      return node;
    }
    node.append(make("b", "", format(raw, false)));
    const other = data.metrics[m].withheld.includes(a) ? null : reference(p, a, r), theirs = other === null ? null : valueOf(m, other);
    if (theirs !== null) {
      const gained = data.metrics[m].lower ? theirs - raw : raw - theirs;
      node.append(" ", make("small", gained > 0 ? "better" : gained < 0 ? "worse" : "", format(raw - theirs, true)));
    }
    return node;
  }

  function badges({ a, place, code, cell, base, texts }) {
    const node = make("div", "badges");
    if (code === "f") node.append(make("span", "badge bad", "failed"));
    if (code === "m") node.append(make("span", "badge bad", "missing"));
    if (code === "t") node.append(make("span", "badge warn", "truncated"));
    if (isUnscored(place)) {
      const which = data.metrics.filter((_, m) => data.values[m][place] === null).map(({ name }) => name);
      node.append(make("span", "badge warn", which.length === data.metrics.length ? "unscored" : "unscored by " + which.join(", ")));
    }
    if (a !== data.baseline && base && cell.t !== undefined && base.t === cell.t) {
      node.append(make("span", "badge", "same text as " + data.arms[data.baseline]));
    }
    return node;
  }

  function signalTables({ place, cell }) {
    const parts = [];
    data.metrics.forEach(({ name, signals }, m) => {
      const [reason, counts, said] = cell.s[m], value = valueOf(m, place);
      if (!cell.s[m].length) return;
      const line = make("p", "role", name + (value === null ? ": unscored" : " " + format(value, false)));
      if (reason) line.append(", " + reason);
      parts.push(line);
      const rows = counts.map((count, j) => [readable(signals[j]), count]).filter(([, count]) => count);
      if (rows.length) parts.push(signalTable(name, rows));
      else if (counts.length) parts.push(make("p", "meta", "no signal found"));
      if (said) parts.push(longText(said, "What the judge of " + name + " said"));
    });
    return folded("Scores and signals", parts);
  }

  function signalTable(name, rows) {
    const table = make("table"), body = make("tbody");
    table.append(make("caption", "hidden", "Signals of " + name), body);
    for (const [signal, count] of rows) {
      const row = make("tr"), head = make("th", "", signal);
      head.scope = "row";
      row.append(head, make("td", "num", String(count)));
      body.append(row);
    }
    return table;
  }

  // Scrolls within its card, so the keyboard must reach it and it must say what it is.
  function longText(text, label) {
    const node = make("div", "text", text);
    node.tabIndex = 0;
    node.setAttribute("role", "region");
    node.setAttribute("aria-label", label);
    return node;
  }

  function folded(title, children) {
    const node = make("details");
    node.append(make("summary", "", title), ...children);
    return node;
  }
