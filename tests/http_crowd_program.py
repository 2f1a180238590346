"""A server for a crowd of clients, under uvicorn: http_crowd_program.py FILE. It says its port when it listens."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
from http_jobs import varied

from durably import create_durably
from durably.http import create_durably_handler
from durably.http.asgi import durably_app


async def main(file: str) -> None:
    durably = create_durably(file, jobs=[varied], polling_interval=0.05, max_concurrent_runs=8, durability="relaxed")
    handler = create_durably_handler(durably)
    server = uvicorn.Server(uvicorn.Config(durably_app(handler), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listening:
        print(listening.getsockname()[1], flush=True)
        await server.serve([listening])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
