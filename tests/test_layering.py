"""Imports of the package go from the left of the architecture to the right, and never back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "lem"

# Every room on the levels above may be imported; rooms on one level do not know each other.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("paths",),
    ("config",),
    ("records", "stats", "data"),
    ("chat",),
    ("runs",),
    ("scorers", "judges"),
    ("benchmarks",),
    ("ab", "training", "steering", "reward", "interop", "reports"),
    ("rl", "studies"),
    ("cli",),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# Narrower than their level: reports draw what run directories hold, and nothing that could generate.
ONLY = {"reports": {"errors", "paths", "config", "records", "stats", "data"}}
WITHOUT_MLX = {"errors", "paths", "config", "records", "stats", "data", "scorers", "reports", "interop", "cli"}
MLX = {"mlx", "mlx_lm"}


@dataclass(frozen=True)
class Import:
    """One imported module: where, what, and whether it runs as soon as the importing module is imported."""

    module: str
    line: int
    target: str
    at_import: bool


def module_name(path: Path, package: Path) -> str:
    """`.../lem/chat/__init__.py` -> `lem.chat`."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_modules(package: Path) -> dict[str, list[Import]]:
    """Parse every module of a package; its imports, `from` names that are modules resolved to those modules."""
    paths = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    return {name: list(_imports(name, path, set(paths))) for name, path in paths.items()}


def _imports(module: str, path: Path, known: set[str]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    here = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node, at_import in _walk(tree, True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name, at_import)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = here.split(".")[: len(here.split(".")) - (node.level - 1)]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(module, node.lineno, full if full in known else base, at_import)


def _walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, with whether it runs at import: not in a function, not under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        yield child, at_import
        later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from _walk(child, at_import and not later)


def room_of(module: str, package: str = "lem") -> str | None:
    """`lem.chat.load` -> `chat`; `lem` itself -> ''; another package -> None."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == package else None


def direction_faults(modules: dict[str, list[Import]]) -> list[str]:
    """Name every import that goes against the levels, function bodies included."""
    faults = []
    for item in (item for found in modules.values() for item in found):
        source, target = room_of(item.module), room_of(item.target)
        if not target or source == target or target not in LEVEL_OF or (source and source not in LEVEL_OF):
            continue
        allowed = bool(source) and LEVEL_OF[target] < LEVEL_OF[source or ""]
        if not allowed or target not in ONLY.get(source or "", {target}):
            faults.append(f"{item.module}:{item.line} imports {item.target}")
    return faults


def mlx_faults(modules: dict[str, list[Import]]) -> list[str]:
    """Name the modules of rooms without MLX whose import would import it, be it through others, and the way there."""
    faults = []
    for module in modules:
        if room_of(module) in WITHOUT_MLX or room_of(module) == "":
            chain = _chain_to_mlx(module, modules, set())
            if chain:
                faults.append(" -> ".join(chain))
    return faults


def _chain_to_mlx(module: str, modules: dict[str, list[Import]], seen: set[str]) -> list[str]:
    if module.partition(".")[0] in MLX:
        return [module]
    # Importing a.b.c also runs a and a.b.
    parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
    targets = parents + [item.target for item in modules.get(module, []) if item.at_import]
    for target in targets:
        if target not in seen:
            seen.add(target)
            chain = _chain_to_mlx(target, modules, seen)
            if chain:
                return [module, *chain]
    return []


@pytest.fixture(scope="module")
def modules() -> dict[str, list[Import]]:
    return read_modules(PACKAGE)


def test_every_room_has_its_level(modules: dict[str, list[Import]]) -> None:
    rooms = {room_of(module) for module in modules} - {""}
    assert rooms - set(LEVEL_OF) == set(), "give a new room its place in LEVELS"


def test_imports_never_go_back(modules: dict[str, list[Import]]) -> None:
    assert direction_faults(modules) == []


def test_rooms_without_mlx_import_none_of_it(modules: dict[str, list[Import]]) -> None:
    assert mlx_faults(modules) == []


def write_package(folder: Path, files: dict[str, str]) -> dict[str, list[Import]]:
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / "lem" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_modules(folder / "lem")


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("records/a.py", "from lem.chat import load", "lem.records.a:1 imports lem.chat"),
        ("records/a.py", "def f():\n    import lem.stats.x", "lem.records.a:2 imports lem.stats.x"),
        ("records/a.py", "from ..runs.b import c", "lem.records.a:1 imports lem.runs.b"),
        ("errors.py", "from . import config", "lem.errors:1 imports lem.config"),
        ("reports/a.py", "import lem.runs", "lem.reports.a:1 imports lem.runs"),
        ("__init__.py", "from lem.errors import X", "lem:1 imports lem.errors"),
        ("cli/a.py", "from lem.studies import demo\nfrom lem import __version__", ""),
        ("chat/__init__.py", "from .load import x\nfrom lem.chat.render import y\nimport lem.data", ""),
    ],
)
def test_a_wrong_direction_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    found = direction_faults(write_package(tmp_path, {"config.py": "", file: text}))
    assert found == ([fault] if fault else [])


def test_mlx_is_found_through_other_modules_but_not_inside_functions(tmp_path: Path) -> None:
    modules = write_package(
        tmp_path,
        {
            "chat/__init__.py": "import mlx.core as mx",
            "chat/words.py": "",
            "scorers/direct.py": "try:\n    from mlx_lm import load\nexcept ImportError:\n    pass",
            "scorers/through.py": "from lem.chat import words",
            "scorers/later.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mlx.core\n"
            "def f():\n    import mlx.core",
        },
    )
    assert mlx_faults(modules) == [
        "lem.scorers.direct -> mlx_lm",
        "lem.scorers.through -> lem.chat.words -> lem.chat -> mlx.core",
    ]
