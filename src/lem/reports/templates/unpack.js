  // Texts lie in parts, deflated; a part is unpacked when a row of it opens or a search comes by.
  const MOST_KEPT = 8;
  const unpacked = new Map();
  const awaited = new Map();

  async function inflate(blob) {
    const raw = atob(blob), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  // Files of a large run are scripts, because a page opened from disk may load a script and not a file.
  window.lemReportPart = (id, n, blob) => {
    const waiting = awaited.get(n);
    if (!waiting) return;
    if (id === data.id) waiting.resolve(blob);
    else waiting.reject(new Error("The files in " + data.folder + " belong to another report; make this one again."));
  };

  function fromFile(n) {
    return new Promise((resolve, reject) => {
      awaited.set(n, { resolve, reject });
      const script = document.createElement("script");
      script.src = encodeURIComponent(data.folder) + "/" + String(n + 1).padStart(4, "0") + ".js";
      script.onload = () => script.remove();
      script.onerror = () => {
        script.remove();
        reject(new Error("The folder " + data.folder + " with the texts is not beside this page."));
      };
      document.head.append(script);
    }).finally(() => awaited.delete(n));
  }

  function blobOf(n) {
    return data.folder ? fromFile(n) : Promise.resolve(byId("part-" + n).textContent);
  }

  function part(n) {
    let found = unpacked.get(n);
    if (!found) found = blobOf(n).then(inflate);
    unpacked.delete(n);
    unpacked.set(n, found);
    found.catch(() => unpacked.delete(n));
    if (data.folder && unpacked.size > MOST_KEPT) unpacked.delete(unpacked.keys().next().value);
    return found;
  }

  function partNumber(p) {
    let low = 0, high = data.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.starts[middle] <= p) low = middle; else high = middle - 1;
    }
    return low;
  }

  async function textsOf(p) {
    const n = partNumber(p), found = await part(n);
    return { texts: found.texts, probe: found.probes[p - data.starts[n]] };
  }
