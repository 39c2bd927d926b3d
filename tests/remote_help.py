"""A small OpenAI-compatible server on this machine that answers as a test says, also badly."""

import asyncio
import json
import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from intarsia.prompting.base import Message, OpenAICompatible, Sampling

RESET = object()  # in a stream: cut the connection


class Server:
    """`answer(path, body)` gives a status and what to say (bytes, JSON, or an iterator of pieces, each sent by itself;
    `RESET` cuts the connection), and more fields of the head if it likes. asked: (path, body, head) of each request;
    ports: of the connections that they came by; gone: is set when a client left before a stream had ended."""

    def __init__(self, answer):
        self.asked = []
        self.ports = set()
        self.gone = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two pieces, and the second would wait for the first

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "null")
                outer.asked.append((self.path, body, dict(self.headers)))
                outer.ports.add(self.client_address[1])
                status, said, *head = answer(self.path, body)
                self.send_response(status)
                for name, value in (head[0] if head else {}).items():
                    self.send_header(name, value)
                if hasattr(said, "__next__"):
                    return self.stream(said)
                raw = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def stream(self, pieces):
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for piece in pieces:
                        if piece is RESET:
                            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            self.connection.close()
                            self.close_connection = True
                            return
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    outer.gone.set()
                    self.close_connection = True

            do_GET = do_POST

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_):  # a client that would not wait is no news
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@contextmanager
def serving(answer):
    """The same, as long as the block runs."""
    server = Server(answer)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def choice(text, **more):
    """An answer in one message."""
    return {"choices": [{"message": {"role": "assistant", "content": text}, **more}]}


def event(data):
    """One event of a stream, as bytes."""
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def piece(text, **more):
    """One piece of a streamed message."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, **more}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USED = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}

ASK = [Message("system", "Be short."), Message("user", "Hello?")]


def backend(server, **more):
    """The model `m` of a server."""
    return OpenAICompatible(server.url, "m", **({"pause": 0.001} | more))


def ask(server, prompt=ASK, sampling=Sampling(), constraint=None, tools=(), **more):
    """One whole answer."""

    async def whole():
        model = backend(server, **more)
        try:
            return await model.generate(prompt, sampling, constraint=constraint, tools=tools)
        finally:
            await model.close()

    return asyncio.run(whole())


def stream(server, prompt=ASK, sampling=Sampling(), constraint=None, tools=(), **more):
    """The pieces of one."""

    async def whole():
        model = backend(server, **more)
        try:
            return [delta async for delta in model.stream(prompt, sampling, constraint=constraint, tools=tools)]
        finally:
            await model.close()

    return asyncio.run(whole())


def said(text, finish="stop", **more):
    """An answer that says how it ended."""
    return {**choice(text, finish_reason=finish), **more}
