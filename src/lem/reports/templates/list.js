  // Only the rows in view exist, so that a list of 88,000 probes scrolls like one of a hundred.
  const SPARE_ROWS = 6;
  let rowHeight = 60;
  let showing = 0;

  function renderList() {
    const from = Math.max(0, Math.floor(pane.scrollTop / rowHeight) - SPARE_ROWS);
    const to = Math.min(visible.length, Math.ceil((pane.scrollTop + pane.clientHeight) / rowHeight) + SPARE_ROWS);
    const first = Math.min(from, Math.max(0, to - 1));
    list.style.paddingTop = first * rowHeight + "px";
    list.style.paddingBottom = Math.max(0, visible.length - to) * rowHeight + "px";
    list.replaceChildren(...visible.slice(first, to).map((p, i) => option(p, first + i)));
    const row = list.firstElementChild;
    if (row && row.offsetHeight && row.offsetHeight !== rowHeight) {
      rowHeight = row.offsetHeight;
      renderList();
    }
  }

  function option(p, at) {
    const item = make("li"), head = make("span", "head");
    item.id = "probe-" + p;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(p === current));
    item.setAttribute("aria-posinset", String(at + 1));
    item.setAttribute("aria-setsize", String(visible.length));
    head.append(make("b", "", data.ids[p]), make("span", "quiet", data.domains[data.domain[p]]));
    item.append(head, make("span", "line", data.heads[p]));
    item.addEventListener("click", () => show(p, false));
    return item;
  }

  function reach(at) {
    const top = at * rowHeight, height = pane.clientHeight;
    if (top < pane.scrollTop || top + rowHeight > pane.scrollTop + height) pane.scrollTop = Math.max(0, top - height / 3);
    renderList();
  }

  async function show(p, reveal) {
    const turn = ++showing, at = visible.indexOf(p), title = byId("probe-title");
    current = p;
    article.setAttribute("aria-busy", "true");
    byId("previous").disabled = at <= 0;
    byId("next").disabled = at < 0 || at === visible.length - 1;
    if (at < 0) {
      list.removeAttribute("aria-activedescendant");
      title.textContent = data.ids.length ? "No probe matches these filters." : "This run has no probes.";
      byId("prompt").textContent = "";
      cards.replaceChildren();
      settle("");
      return;
    }
    reach(at);
    list.setAttribute("aria-activedescendant", "probe-" + p);
    title.replaceChildren(data.ids[p] + " ", make("span", "quiet", data.domains[data.domain[p]]));
    try {
      const found = await textsOf(p);
      if (turn !== showing) return;
      byId("prompt").textContent = found.texts[found.probe.t];
      const nodes = cardsOf(p, found);
      cards.replaceChildren(...nodes);
      if (!nodes.length) cards.append(make("p", "quiet", shownArms.size ? "Nothing was planned here." : "No arm is chosen."));
      cards.dataset.columns = String(Math.min(nodes.length, 3));
    } catch (error) {
      if (turn !== showing) return;
      byId("prompt").textContent = "";
      cards.replaceChildren(make("p", "notice bad", error.message));
    }
    settle(data.ids[p]);
    if (reveal) bringToTop(article);
  }

  function settle(id) {
    article.dataset.shown = id;
    article.setAttribute("aria-busy", "false");
  }

  // After a step, a reader who is deep in one answer sees the next one from its start; others stay where they are.
  function bringToTop(node) {
    const box = node.getBoundingClientRect();
    if (box.top < 0 && box.bottom > 0) node.scrollIntoView({ block: "start" });
  }

  function step(by) {
    const at = visible.indexOf(current) + by;
    if (visible.length && at >= 0 && at < visible.length) show(visible[at], true);
  }
