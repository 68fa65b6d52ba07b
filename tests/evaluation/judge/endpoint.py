"""A local endpoint of chat completions whose behaviour a test decides."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-the-key-of-the-tests"


class Endpoint:
    """What came in, and what goes out: `behave(number, request)` returns (status, body, headers).

    `number` counts requests from 0; a body that is a string is sent as it is. `behave` may wait on
    `stopped` to be slow or never answer: it is set when the test is over.
    """

    def __init__(self, behave: Callable):
        self.behave = behave
        self.requests: list[dict] = []
        self.keys: set[str] = set()
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.url = ""

    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


def completion(text: str | None, finish_reason: str = "stop", model: str = "judge-0613") -> dict:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }


@contextlib.contextmanager
def serving(behave: Callable) -> Iterator[Endpoint]:
    """Serves on a free port until the block ends."""
    endpoint = Endpoint(behave)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                number = len(endpoint.requests)
                endpoint.requests.append(request | {"path": self.path})
                endpoint.keys.add(self.headers["Authorization"])
            status, body, headers = endpoint.behave(number, request)
            if endpoint.stopped.is_set():
                return
            content = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
            with contextlib.suppress(ConnectionError):  # the client may have gone
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content.encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.stopped.set()
        server.shutdown()
        server.server_close()


def says(text: str | None, **settings) -> Callable:
    """An endpoint that always answers the same."""
    return lambda number, request: (200, completion(text, **settings), {})
