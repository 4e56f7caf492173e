"""What tests of the page share: its elements, its unpacked index and parts."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from typing import Any


class Elements(HTMLParser):
    """Every element with its attributes, the visible text, and the contents of script elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in: str | None = None
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text += data + " "


def unpack(blob: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(blob)))


def index_of(page: str) -> dict[str, Any]:
    found = unpack(Elements(page).scripts[0])
    assert isinstance(found, dict)
    return found


def parts_of(page: str) -> list[dict[str, Any]]:
    return [unpack(blob) for blob in Elements(page).scripts[1:-1]]


def answers_of(index: dict[str, Any], parts: list[dict[str, Any]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """(arm, probe, repeat) -> its cell with the texts put back."""
    found = {}
    repeats = len(index["repeats"])
    probes = [(part["texts"], probe) for part in parts for probe in part["probes"]]
    for probe_id, (texts, probe) in zip(index["ids"], probes, strict=True):
        for cell in probe["c"]:
            arm, repeat = index["arms"][cell["i"] // repeats], index["repeats"][cell["i"] % repeats]
            whole = dict(cell) | {name: texts[cell[name]] for name in ("t", "k") if name in cell}
            whole["m"] = [
                {"role": role, "content": "".join(texts[part] for part in parts)} for role, parts in cell["m"]
            ]
            found[arm, probe_id, repeat] = whole
    return found
