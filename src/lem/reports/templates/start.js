"use strict";
(function () {
  const byId = (id) => document.getElementById(id);
  const list = byId("probes"), pane = byId("pane"), cards = byId("cards"), article = byId("probe");
  const search = byId("search"), domain = byId("domain"), outcome = byId("outcome");
  const repeat = byId("repeat"), change = byId("change"), metric = byId("metric"), markedBy = byId("marked-by");
  const shownArms = new Set();
  let data = null;
  let visible = [];
  let current = 0;

  // Every text enters the page through textContent, so that an answer can never act as markup.
  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function choice(value, text) {
    const node = make("option", "", text);
    node.value = value;
    return node;
  }

  function format(value, signed) {
    const text = (Math.round(value * 100) / 100 + 0).toFixed(2);
    return signed && Number(text) > 0 ? "+" + text : text;
  }

  function counted(n, noun) {
    return n.toLocaleString("en") + " " + noun + (n === 1 ? "" : "s");
  }

  // Places of the grid: probe by probe, within it arm by arm, within that repeat by repeat.
  function placeOf(p, a, r) {
    return (p * data.arms.length + a) * data.repeats.length + r;
  }

  function valueOf(m, place) {
    const value = data.values[m][place];
    return typeof value === "number" ? value : null;
  }

  function isAnswered(place) {
    return data.outcomes[place] === "a" || data.outcomes[place] === "t";
  }

  function isUnscored(place) {
    return data.values.some((values) => values[place] === null);
  }

  function shownRepeats() {
    return repeat.value === "" ? [...data.repeats.keys()] : [Number(repeat.value)];
  }

  function meanOf(m, p, a) {
    let sum = 0, n = 0;
    for (let r = 0; r < data.repeats.length; r++) {
      const value = valueOf(m, placeOf(p, a, r));
      if (value !== null) { sum += value; n += 1; }
    }
    return n ? sum / n : null;
  }

  // improved, regressed or unchanged: the mean over repeats against that of the baseline; null when one has none,
  // or when a comparison withholds it.
  function changeOf(m, p, a) {
    if (data.metrics[m].withheld.includes(a)) return null;
    const ours = meanOf(m, p, a), theirs = meanOf(m, p, data.baseline);
    if (ours === null || theirs === null) return null;
    const { threshold, lower } = data.metrics[m], gained = lower ? theirs - ours : ours - theirs;
    return gained > threshold ? "improved" : gained < -threshold ? "regressed" : "unchanged";
  }
