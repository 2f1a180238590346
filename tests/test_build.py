"""What build.py decides: what is up to date, what the site holds, what its server says."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import ModuleType

import pytest

BUILD = Path(__file__).resolve().parents[1] / "build.py"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("durably_build", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- what is up to date ---------------------------------------------------------------------------


class Workshop:
    """A step in a folder of its own: `python` writes a file, so that a step which ran can be told."""

    def __init__(self, build: ModuleType, folder: Path) -> None:
        self._build = build
        self.product = folder / "product"
        self.count = folder / "count"

    def step(self, inputs: str = "same", *, code: str = "", **options: object) -> None:
        run = f"from pathlib import Path; p = Path({str(self.count)!r}); p.open('a').write('x'); {code}"
        self._build.step("Thing", self.product, inputs, "Mend it.", sys.executable, "-c", run, **options)

    @property
    def runs(self) -> int:
        return len(self.count.read_text()) if self.count.exists() else 0


@pytest.fixture
def workshop(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "CACHE", tmp_path / ".cache")
    return Workshop(build, tmp_path)


def test_a_step_runs_again_only_when_its_inputs_change(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    workshop.step("first")
    workshop.step("first")
    assert workshop.runs == 1
    assert "Thing: up to date" in capsys.readouterr().out

    workshop.step("second")
    assert workshop.runs == 2


def test_a_step_runs_again_after_its_folder_was_deleted(workshop: Workshop) -> None:
    workshop.step()
    (workshop.product / ".made-all").unlink()
    workshop.product.rmdir()
    workshop.step()
    assert workshop.runs == 2


def test_a_failed_step_says_why_and_what_to_do_and_is_tried_again(build: ModuleType, workshop: Workshop) -> None:
    workshop.step("good")
    with pytest.raises(build.BuildError) as caught:
        workshop.step("bad", code="print('the disk is on fire'); raise SystemExit(3)")
    assert "the disk is on fire" in str(caught.value)
    assert "Thing failed. Mend it." in str(caught.value)

    workshop.step("good")
    assert workshop.runs == 3, "a step that was begun anew has lost what it had made before"


def test_a_fresh_step_leaves_nothing_of_an_earlier_one(workshop: Workshop) -> None:
    workshop.step("first")
    (workshop.product / "old.whl").touch()
    workshop.step("second", fresh=True)
    assert [path.name for path in workshop.product.iterdir()] == [".made-all"]


def test_a_digest_tells_apart_content_and_place_of_files(build: ModuleType, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("text")
    two.write_text("text")
    assert build.digest(one) == build.digest(one)
    assert build.digest(one) != build.digest(two)
    before = build.digest(one)
    one.write_text("texts")
    assert build.digest(one) != before


# --- the lock file that Pyodide reads -------------------------------------------------------------


def make_wheel(folder: Path, name: str, version: str, files: list[str], needs: list[str]) -> Path:
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs) + "\nName: not-this-one, it is the text\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in files:
            archive.writestr(file, "")
        archive.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "")
    return wheel


def test_the_lock_names_each_local_wheel_and_what_it_needs_of_the_others(build: ModuleType, tmp_path: Path) -> None:
    needs = [
        "Typing_Extensions>=4.6",
        "compiled.half==2.0 ; python_version >= '3.9'",
        "somewhere-else>=1",
        'optional>=2; extra == "more"',
    ]
    main = make_wheel(tmp_path, "main_part", "1.5", ["main_part/__init__.py", "main_part/deep/er.py"], needs)
    single = make_wheel(tmp_path, "typing_extensions", "4.16.0", ["typing_extensions.py"], [])
    so = "_compiled.cpython-314-wasm32-emscripten.so"
    compiled = make_wheel(tmp_path, "Compiled_Half", "2.0", [so, "compiled_half/__init__.py"], [])
    optional = make_wheel(tmp_path, "optional", "2.1", ["optional/__init__.py"], [])

    lock = build.pyodide_lock({"python": "3.14.2"}, [main, single, compiled, optional])

    assert lock["info"] == {"python": "3.14.2"}
    assert list(lock["packages"]) == ["main-part", "typing-extensions", "compiled-half", "optional"]
    assert lock["packages"]["main-part"] == {
        "name": "main-part",
        "version": "1.5",
        "file_name": "main_part-1.5-py3-none-any.whl",
        "install_dir": "site",
        "sha256": hashlib.sha256(main.read_bytes()).hexdigest(),
        "package_type": "package",
        "imports": ["main_part"],
        "depends": ["compiled-half", "typing-extensions"],
        "unvendored_tests": False,
    }
    assert lock["packages"]["typing-extensions"]["imports"] == ["typing_extensions"]
    assert lock["packages"]["compiled-half"]["imports"] == ["_compiled", "compiled_half"]


# --- the site's folder ----------------------------------------------------------------------------


def test_the_site_is_swapped_file_by_file_and_only_where_it_changed(build: ModuleType, tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert build.make_folder_hold(site, {"index.html": b"1", "durably/old.whl": b"2"}) == 2
    untouched = (site / "index.html").stat().st_mtime_ns

    assert build.make_folder_hold(site, {"index.html": b"1", "durably/new.whl": b"3"}) == 2
    assert (site / "index.html").stat().st_mtime_ns == untouched
    assert [path.name for path in (site / "durably").iterdir()] == ["new.whl"]

    (site / "index.html").write_bytes(b"spoilt by hand")
    assert build.make_folder_hold(site, {"index.html": b"1", "durably/new.whl": b"3"}) == 1
    assert (site / "index.html").read_bytes() == b"1"


# --- the server -----------------------------------------------------------------------------------


@pytest.fixture
def port(build: ModuleType, tmp_path: Path) -> Iterator[int]:
    """A server of a folder with one file of each kind; its port."""
    (tmp_path / "site").mkdir()
    (tmp_path / "secret.txt").write_text("not for the web")
    for name in ("page.html", "a.js", "b.mjs", "c.wasm", "d.whl", "e.json", "f.css"):
        (tmp_path / "site" / name).write_text(name)
    with build.make_server(tmp_path / "site", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port: int, path: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("b.mjs", "text/javascript; charset=utf-8"),
        ("c.wasm", "application/wasm"),
        ("d.whl", "application/zip"),
        ("e.json", "application/json"),
        ("f.css", "text/css; charset=utf-8"),
    ],
)
def test_files_are_served_with_the_type_that_browsers_insist_on(port: int, name: str, kind: str) -> None:
    answer, text = get(port, f"/{name}")
    assert (answer.status, text, answer.version) == (200, name, 11)
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Cache-Control"] == "no-cache"
    assert not [header for header in answer.headers if header.lower().startswith("cross-origin")]


@pytest.mark.parametrize("path", ["/missing.js", "/../secret.txt", "/%2e%2e/secret.txt"])
def test_what_is_not_in_the_folder_is_not_found(port: int, path: str) -> None:
    answer, _ = get(port, path)
    assert answer.status == 404


def test_the_api_of_the_example_refuses_and_fails_as_it_says(build: ModuleType) -> None:
    """The example's retries have something to do on every machine, however slow."""
    second = [0.0]
    api = build.OrdersApi(clock=lambda: second[0])
    asked = [api.answer(str(number))[0] for number in range(1, 23)]
    assert asked == [200] * 12 + [503] + [200] * 7 + [429] * 2
    second[0] += 1
    assert api.answer("21") == (200, {"number": 21, "country": "Estonia", "cents": 6299})
    assert api.answer("none")[0] == 404


def test_the_api_of_the_example_is_served_beside_the_files_and_says_when_to_come_back(
    build: ModuleType, tmp_path: Path
) -> None:
    with build.make_server(tmp_path, 0) as server:
        server.orders = build.OrdersApi(clock=lambda: 0.0)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        answer, text = get(server.server_port, "/api/orders/1")
        for _ in range(build.OrdersApi.PER_SECOND):
            refusal, _ = get(server.server_port, "/api/orders/2")
        server.shutdown()
        thread.join()
    assert (answer.status, text) == (200, '{"number": 1, "country": "Chile", "cents": 7919}')
    assert answer.headers["Content-Type"] == "application/json"
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, "1")


def test_a_port_that_is_taken_is_refused_in_a_sentence(build: ModuleType, tmp_path: Path) -> None:
    with build.make_server(tmp_path, 0) as server, pytest.raises(build.BuildError, match="--port"):
        build.make_server(tmp_path, server.server_port)


# --- the command line -----------------------------------------------------------------------------


def test_help_names_each_verb() -> None:
    shown = subprocess.run([sys.executable, BUILD, "--help"], capture_output=True, text=True, check=True).stdout
    for verb in ("demo", "test", "wheel", "site", "serve", "clean"):
        assert f"\n    {verb} " in shown


def test_what_follows_two_dashes_goes_to_pytest(build: ModuleType) -> None:
    options = build.command_line().parse_args(["test", "--fast", "--", "-k", "one", "--co"])
    assert options.fast
    assert options.pytest_args == ["-k", "one", "--co"]


# --- the browsers ---------------------------------------------------------------------------------


def test_without_a_firefox_the_person_is_told_how_to_get_one(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DURABLY_FIREFOX", raising=False)
    monkeypatch.setattr(build, "installed_firefox", str)
    monkeypatch.setattr(build, "DEBIAN_ROOT", False)
    with pytest.raises(build.BuildError, match="apt install firefox-esr"):
        build.choose_firefox()


def test_debian_gets_a_firefox_installed(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(build, "installed_firefox", lambda: "/opt/firefox" if installed else "")
    monkeypatch.setattr(build, "DEBIAN_ROOT", True)
    monkeypatch.setattr(build, "apt_install", installed.append)
    monkeypatch.setenv("DURABLY_FIREFOX", "")  # so that what is chosen is forgotten after the test
    build.choose_firefox()
    assert installed == ["firefox-esr"]
    assert build.os.environ["DURABLY_FIREFOX"] == "/opt/firefox"


def test_a_firefox_that_does_not_start_is_refused_by_its_name(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLY_FIREFOX", "/nowhere/firefox")
    with pytest.raises(build.BuildError, match="/nowhere/firefox"):
        build.choose_firefox()
