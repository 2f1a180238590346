"""The shape of `durably/`: who may import whom, how long a module may be, what is public."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import durably

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "durably"

# Each layer may import itself and those before it.
LAYERS: list[set[str]] = [
    {"texts", "cards", "errors", "records", "events"},
    {"clock", "ids", "codec", "retry"},
    {"database", "databases", "databases.thread", "databases.sqlite", "databases.bridge", "databases.opfs"},
    {"queries", "ledger_queries", "rows", "store", "ledger", "migrations", "storage", "versions"},
    {
        "calls",
        "deadlines",
        "schedules",
        "services",
        "progress",
        "waiting",
        "session",
        "typed",
        "waits",
        "step",
        "jobs",
        "liveness",
        "chores",
        "claiming",
        "execution",
        "worker",
    },
    {"neighbours"},
    {"handles", "subscription", "following", "views", "scheduling", "management", "plugins", "engine", "jobfiles"},
    {
        "http",
        "http.message",
        "http.auth",
        "http.reading",
        "http.throttle",
        "http.wire",
        "http.sse",
        "http.openapi",
        "http.handler",
        "http.asgi",
    },
    {
        "command",
        "command.terminal",
        "command.opening",
        "command.pictures",
        "command.verbs",
        "command.serving",
        "command.line",
        "__main__",
    },
    {"testing", "testing.asserts", "testing.counting", "testing.faults", "testing.manual_clock"},
    {
        "browser",
        "browser.channel",
        "browser.page",
        "browser.interrupts",
        "browser.locks",
        "browser.port",
        "browser.boot",
        "browser.snapshots",
    },
]
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

# The engine picks the liveness of its home, and a record is named in an error's type.
ALLOWED_UPWARD = {("engine", "browser.locks"), ("engine", "browser.channel")}

LONGEST = 400
LONGER_WITH_REASON: dict[str, tuple[int, str]] = {}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(module: str) -> set[str]:
    """The modules of durably that a module imports when it runs (not for types alone)."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    tree = ast.parse(path.read_text("utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in for_types:
            base = package[: len(package) - node.level + 1]
            target = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names = {f"{target}.{name.name}".strip(".") for name in node.names}
            found |= {name if name in MODULES else target for name in names}
    return found


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_a_module_imports_only_its_own_layer_and_those_above(module: str) -> None:
    assert module in RANK, f"give {module} a place in LAYERS"
    upward = {
        other for other in imports_of(module) if RANK[other] > RANK[module] and (module, other) not in ALLOWED_UPWARD
    }
    assert not upward, f"{module} imports {upward}, which are below it"


def test_there_are_no_circles() -> None:
    graph = {module: imports_of(module) for module in MODULES if module != "__init__"}
    graph["engine"] -= {"browser.locks", "browser.channel"}

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        for other in graph.get(module, ()):
            walk(other, (*path, module))

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_is_short_and_says_what_it_is(module: str) -> None:
    text = MODULES[module].read_text("utf-8")
    longest, _ = LONGER_WITH_REASON.get(module, (LONGEST, ""))
    assert len(text.splitlines()) <= longest
    assert ast.get_docstring(ast.parse(text)), "the module docstring is its contract"


def test_only_the_browser_half_knows_javascript() -> None:
    users = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"js", "pyodide"})
        or (isinstance(node, ast.Import) and any(name.name.split(".")[0] in {"js", "pyodide"} for name in node.names))
    }
    assert users <= {"databases.bridge", "databases.opfs", "browser.channel", "browser.locks"}


def test_what_is_public_is_sorted_and_there() -> None:
    assert list(durably.__all__) == sorted(durably.__all__)
    assert all(hasattr(durably, name) for name in durably.__all__)


def test_the_browser_tests_do_not_hide_the_package_they_use() -> None:
    """An `__init__.py` there would make `import playwright` find our folder."""
    assert not (ROOT / "playwright" / "__init__.py").exists()
