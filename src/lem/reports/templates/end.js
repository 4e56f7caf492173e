  inflate(byId("index").textContent).then((index) => {
    data = index;
    prepareMarks();
    prepareFilters();
    prepareKeys();
    filter();
    followLink();
    list.dataset.searching = "no";
  }, () => {
    byId("probe-title").textContent = "This browser cannot unpack the answers; open the page in a newer one.";
  });
})();
