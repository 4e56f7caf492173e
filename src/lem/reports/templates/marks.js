  // Marks where a scorer's signals stand in an answer; the patterns come from the scorer's own lists.
  const compiled = new Map();
  const unmarked = new Set();

  function patternsOf(scorer) {
    if (!compiled.has(scorer)) {
      const signals = Object.entries(data.highlights[scorer] || {});
      compiled.set(scorer, signals.map(([name, patterns]) => ({
        name, patterns: patterns.map(({ source, flags }) => new RegExp(source, "g" + flags)),
      })));
    }
    return compiled.get(scorer);
  }

  function readable(name) {
    return name.replaceAll("_", " ");
  }

  function matchesIn(text) {
    const found = [];
    patternsOf(markedBy.value).forEach(({ name, patterns }, number) => {
      if (unmarked.has(name)) return;
      for (const pattern of patterns) {
        for (const match of text.matchAll(pattern)) {
          found.push({ from: match.index, to: match.index + match[0].length, name, number });
        }
      }
    });
    return found;
  }

  // The text cut wherever a match begins or ends; a stretch that several signals share names them all.
  function marked(text) {
    const found = matchesIn(text), body = make("div", "text");
    const cuts = [...new Set([0, text.length, ...found.flatMap((match) => [match.from, match.to])])].sort((a, b) => a - b);
    found.sort((a, b) => a.from - b.from);
    let open = [], next = 0;
    for (let i = 0; i + 1 < cuts.length; i++) {
      const from = cuts[i], stretch = text.slice(from, cuts[i + 1]);
      while (next < found.length && found[next].from <= from) open.push(found[next++]);
      open = open.filter((match) => match.to > from);
      if (!open.length) {
        body.append(stretch);
        continue;
      }
      const node = make("mark", "signal-" + (open[0].number % 12), stretch);
      node.title = [...new Set(open.map((match) => readable(match.name)))].join(", ");
      body.append(node);
    }
    const counts = new Map();
    for (const { name } of found) counts.set(name, (counts.get(name) || 0) + 1);
    return { body, counts };
  }

  function markedLine(counts) {
    const told = [...counts].map(([name, n]) => readable(name) + " " + n);
    return make("p", "meta marked", told.length ? "marked: " + told.join(", ") : "nothing marked");
  }

  function signalButton({ name }, number) {
    const button = make("button", "signal signal-" + (number % 12), readable(name));
    button.type = "button";
    button.setAttribute("aria-pressed", String(!unmarked.has(name)));
    button.addEventListener("click", () => {
      unmarked.has(name) ? unmarked.delete(name) : unmarked.add(name);
      button.setAttribute("aria-pressed", String(!unmarked.has(name)));
      show(current, false);
    });
    return button;
  }

  function offerSignals() {
    byId("signals").replaceChildren(...patternsOf(markedBy.value).map(signalButton));
    byId("v3-note").hidden = markedBy.value !== "v3";
  }

  function prepareMarks() {
    const scorers = Object.keys(data.highlights);
    byId("marks").hidden = !scorers.length;
    markedBy.append(choice("", "nothing"), ...scorers.map((name) => choice(name, "signals of " + name)));
    markedBy.value = scorers[0] || "";
    markedBy.addEventListener("change", () => { unmarked.clear(); offerSignals(); show(current, false); });
    offerSignals();
  }
