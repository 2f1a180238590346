"""`python -m durably serve`: a file's jobs executed by a server, with the HTTP API and the dashboard.

Whoever can reach the server may do everything, so it is for this machine: what another site's page sends to it, or a
name that only pretends to be this machine's, is refused. For more, write the few lines of an application with `Auth`.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ..engine import Durably, create_durably
from ..errors import DurablyError, ValidationError
from ..http import Auth, HTTPError, Request, create_durably_handler
from ..http.asgi import ASGIApp, Receive, Scope, Send, durably_app
from ..jobfiles import import_job_file, register_jobs_of
from ..plugins import with_log_persistence
from ..texts import printable
from .terminal import Terminal

API = "/api/durably"
GRACE_SECONDS = 1
"""How long is waited for requests, and then for runs, that are under way when the server is to stop."""

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, to warn

WEB = Path(__file__).parent / "web"
PAGES = {"/": ("index.html", "text/html; charset=utf-8"), "/dashboard.mjs": ("dashboard.mjs", "text/javascript")}
PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def serve_verb(options: argparse.Namespace, terminal: Terminal) -> int:
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise DurablyError("serving needs the package uvicorn: pip install 'durably[server]'") from None
    durably = _durably_of(options.file, [Path(file) for file in options.jobs])
    handler = create_durably_handler(durably, Auth(authenticate=only_own_pages(options.host), on_export=lambda _: True))
    app = with_dashboard(durably_app(handler, API, stop_timeout=GRACE_SECONDS))
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    listening = _listening(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    port = listening.getsockname()[1]
    jobs = ", ".join(sorted(job.name for job in durably.jobs))
    terminal.say(f"Dashboard: http://{host}:{port}/")
    terminal.say(f"API:       http://{host}:{port}{API}/")
    terminal.say(f"Jobs:      {jobs}")
    if options.host in EVERYWHERE:
        terminal.say("Whoever can reach this machine may trigger, read and delete everything.")

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            handler.end_streams()  # it waits for its connections, and these have no end of their own
            asyncio.get_running_loop().call_later(GRACE_SECONDS / 2, self.drop_stalled)
            await super().shutdown(sockets)

        def drop_stalled(self) -> None:
            """Give up clients that do not read what is left to send."""
            for connection in [*self.server_state.connections]:
                transport = connection.transport
                if isinstance(transport, asyncio.Transport) and transport.get_write_buffer_size():
                    transport.abort()

    server = Server(config)
    with suppress(SystemExit):  # its way to end when it could not start, which it has said
        server.run([listening])
    return 0 if server.started else 1


def _durably_of(file: str, job_files: list[Path]) -> Durably:
    durably = create_durably(file)
    durably.use(with_log_persistence())
    for job_file in job_files:
        if not job_file.is_file():
            raise ValidationError(f"there is no job file {job_file}")
        register_jobs_of(durably, import_job_file(job_file.resolve()))
    if not list(durably.jobs):
        raise ValidationError(f"there are no jobs in {', '.join(map(str, job_files))}: define some with @job")
    return durably


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise DurablyError(f"port {port} of {host} is taken; --port takes another one, or 0 for any") from None
        raise DurablyError(f"cannot listen at {host}, port {port}: {error.strerror}") from None


def only_own_pages(host: str) -> Callable[[Request], None]:
    """The guard of a server that listens at `host`: it refuses what another site has sent, or has sent us to."""
    names = {"localhost", "127.0.0.1", "::1", host.lower()}
    is_open = host in EVERYWHERE

    def authenticate(request: Request) -> None:
        asked = request.headers.get("host", "")
        if not is_open and _parts_of(f"//{asked}").hostname not in names:
            raise HTTPError(403, f"this server is not {printable(asked)!r}")  # a name that was made to lead here
        origin = request.headers.get("origin")
        # What a page only shows (an image, a script) has no origin; a browser then says by the other where it is from.
        is_own = request.headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        if not is_own or (origin is not None and _parts_of(origin).netloc != asked):
            raise HTTPError(403, "pages of other sites are not served")

    return authenticate


def _parts_of(url: str) -> SplitResult:
    """The parts of a URL; all empty for what is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def with_dashboard(api: ASGIApp) -> ASGIApp:
    """The dashboard at `/`, and the API."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        page = PAGES.get(scope["path"]) if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else None
        if page is None:
            await api(scope, receive, send)
            return
        name, media_type = page
        body = (WEB / name).read_bytes()
        headers = {**PAGE_HEADERS, "content-type": media_type, "content-length": str(len(body))}
        raw_headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw_headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app
