  const STEPS = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 };

  function leaveField(event) {
    if (event.target === search && search.value) {
      search.value = "";
      find();
    } else {
      list.focus();
    }
  }

  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing) return;
    const inAnswers = byId("answers").contains(event.target), field = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && inAnswers) return leaveField(event);
    if (field || event.target.closest("[role=region]") || !byId("letter-keys").checked && event.key.length === 1) return;
    if (event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Enter" && event.target === list) {
      byId("probe-title").focus();
      article.scrollIntoView({ block: "start" });
    } else {
      const by = STEPS[event.key] || (event.target === list && { ArrowDown: 1, ArrowUp: -1 }[event.key]);
      if (!by || event.shiftKey) return;
      event.preventDefault();
      step(by);
    }
  }

  // Links of the form #probe=P07 open that probe, whatever the filters leave.
  function followLink() {
    const wanted = /^#probe=(.+)$/.exec(location.hash);
    if (!wanted) return;
    const p = data.ids.indexOf(decodeURIComponent(wanted[1]));
    if (p < 0) return;
    if (!visible.includes(p)) clearFilters();
    show(p, false);
    byId("answers").scrollIntoView({ block: "start" });
    byId("probe-title").focus({ preventScroll: true });
  }

  function prepareKeys() {
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    pane.addEventListener("scroll", renderList, { passive: true });
    window.addEventListener("resize", renderList);
    window.addEventListener("hashchange", followLink);
    document.addEventListener("keydown", onKey);
  }
