"""A page opened in headless Chromium, with everything it complained about or asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_MS = 100_000  # for a step that a busy machine may take long over
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_IDLE = """() => document.getElementById('probe').getAttribute('aria-busy') === 'false'
    && document.getElementById('probes').dataset.searching === 'no'"""


class Opened:
    """A page with everything it complained about or asked the network for."""

    def __init__(self, browser: Browser, file: Path, width: int = 1280, scheme: str = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.settle()

    def settle(self) -> None:
        """Wait until the opened row is unpacked and no search is under way."""
        self.page.wait_for_function(_IDLE)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.settle()

    def choose(self, control: str, label: str) -> None:
        self.page.select_option(control, label=label)
        self.settle()

    def type(self, text: str) -> None:
        self.page.fill("#search", text)
        self.settle()

    def arm(self, name: str) -> None:
        """Tick or untick an arm."""
        self.page.locator("#arms label", has_text=name).locator("input").click()
        self.settle()

    def cards(self) -> list[str]:
        return self.page.locator("#cards .card").all_inner_texts()

    def listed(self) -> list[str]:
        return self.page.locator("#probes [role=option] b").all_inner_texts()

    def title(self) -> str:
        return self.page.locator("#probe-title").inner_text().split()[0]

    def close(self) -> None:
        self.page.context.close()


def luminance(colour: str) -> float:
    """WCAG relative luminance of an `rgb(r, g, b)` string."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG contrast of two `rgb(r, g, b)` colours."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
