  const OUTCOMES = { truncated: "t", failed: "f", missing: "m" };
  let hits = null;
  let searching = 0;
  let heads = null;

  function has(place, kind) {
    return kind === "unscored" ? isUnscored(place) : data.outcomes[place] === OUTCOMES[kind];
  }

  function hasOutcome(p, kind) {
    for (const a of shownArms) for (const r of shownRepeats()) if (has(placeOf(p, a, r), kind)) return true;
    return false;
  }

  function hasChange(p, kind) {
    for (const a of shownArms) if (a !== data.baseline && changeOf(Number(metric.value), p, a) === kind) return true;
    return false;
  }

  function matches(p) {
    if (domain.value && data.domain[p] !== Number(domain.value)) return false;
    if (hits && !hits[p]) return false;
    if (outcome.value && !hasOutcome(p, outcome.value)) return false;
    return !change.value || hasChange(p, change.value);
  }

  function filter() {
    const found = [];
    for (let p = 0; p < data.ids.length; p++) if (matches(p)) found.push(p);
    visible = found;
    tellCount("");
    if (!visible.includes(current)) current = visible.length ? visible[0] : current;
    renderList();
    show(current, false);
  }

  function tellCount(more) {
    const all = data.ids.length, n = visible.length;
    const told = n === all ? counted(all, "probe") : n.toLocaleString("en") + " of " + counted(all, "probe");
    byId("count").textContent = told + more;
  }

  // What the index knows is found at once; then the texts are gone through, part by part.
  async function find() {
    const wanted = search.value.trim().toLowerCase(), run = ++searching;
    hits = wanted ? new Uint8Array(data.ids.length) : null;
    list.dataset.searching = wanted ? "yes" : "no";
    if (wanted) {
      heads = heads || data.ids.map((id, p) => (id + " " + data.domains[data.domain[p]] + " " + data.heads[p]).toLowerCase());
      heads.forEach((head, p) => { if (head.includes(wanted)) hits[p] = 1; });
    }
    filter();
    for (let n = 0; wanted && n < data.starts.length; n++) {
      let added = 0;
      try {
        added = searchPart(await part(n), n, wanted, run);
      } catch (error) {
        tellCount(". " + error.message);
        break;
      }
      if (run !== searching) return;
      if (added) filter();
      tellCount(n + 1 < data.starts.length ? ", searched " + (n + 1) + " of " + data.starts.length + " parts" : "");
    }
    list.dataset.searching = "no";
  }

  function searchPart(found, n, wanted, run) {
    if (run !== searching) return 0;
    const R = data.repeats.length, first = data.starts[n], repeats = shownRepeats();
    found.lowered = found.lowered || found.texts.map((text) => text.toLowerCase());
    let added = 0;
    found.probes.forEach((probe, i) => {
      if (hits[first + i]) return;
      const seen = (cell) => shownArms.has(Math.floor(cell.i / R)) && repeats.includes(cell.i % R);
      const inAnswer = (cell) => cell.t !== undefined && seen(cell) && found.lowered[cell.t].includes(wanted);
      if (found.lowered[probe.t].includes(wanted) || probe.c.some(inAnswer)) {
        hits[first + i] = 1;
        added += 1;
      }
    });
    return added;
  }

  function chooseRepeat(label) {
    label.hidden = data.repeats.length < 2;
    if (data.repeats.length > 1) repeat.append(choice("", "all repeats"));
    repeat.append(...data.repeats.map((number, r) => choice(String(r), String(number))));
    repeat.value = data.repeats.length ? "0" : "";
  }

  function chooseArms() {
    data.arms.forEach((name, a) => {
      const label = make("label"), box = make("input");
      box.type = "checkbox";
      box.checked = true;
      shownArms.add(a);
      box.addEventListener("change", () => { box.checked ? shownArms.add(a) : shownArms.delete(a); find(); });
      label.append(box, name);
      byId("arms").append(label);
    });
  }

  function prepareFilters() {
    const domains = data.domains.map((name, d) => [name, d]).filter(([name]) => name);
    domain.append(...domains.map(([name, d]) => choice(String(d), name)));
    domain.parentNode.hidden = domains.length < 2;
    metric.append(...data.metrics.map(({ name }, m) => choice(String(m), name)));
    metric.parentNode.hidden = data.metrics.length < 2;
    change.parentNode.hidden = data.baseline === null || !data.metrics.length || data.arms.length < 2;
    if (data.baseline !== null) change.previousSibling.textContent = "Change against " + data.arms[data.baseline] + " ";
    chooseRepeat(repeat.parentNode);
    chooseArms();
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    let typing = 0;
    search.addEventListener("input", () => { clearTimeout(typing); list.dataset.searching = "yes"; typing = setTimeout(find, 120); });
    for (const control of [domain, outcome, change, metric]) control.addEventListener("change", filter);
    repeat.addEventListener("change", find);
  }

  function clearFilters() {
    search.value = domain.value = outcome.value = change.value = "";
    for (const box of byId("arms").querySelectorAll("input")) if (!box.checked) box.click();
    find();
  }
