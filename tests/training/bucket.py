"""A stand-in for a storage bucket: as much of Cloud Storage's JSON interface as TensorStore asks for, and the
same objects as a file system of fsspec."""

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
from etils.epath import gpath

HOLDS: dict[str, tuple[bytes, int]] = {}  # "bucket/name" -> content, generation
_changing = threading.Lock()


def put(name, content):
    """Writes an object; its generation."""
    with _changing:
        generation = 1 + max((one for _, one in HOLDS.values()), default=0)
        HOLDS[name] = (content, generation)
        return generation


class Handler(BaseHTTPRequestHandler):
    """Answers TensorStore."""

    protocol_version = "HTTP/1.1"

    def _asked(self):
        parsed = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parsed.query))
        parts = parsed.path.split("/b/", 1)[1].split("/o", 1)
        name = urllib.parse.unquote(parts[1].removeprefix("/")) if len(parts) > 1 else None
        return parts[0], name, query

    def _answer(self, code, content=b"", **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        bucket, name, query = self._asked()
        if name is None:
            return self._answer(200, {"name": bucket})
        if not name:
            prefix, begin = query.get("prefix", ""), query.get("startOffset", "")
            end = query.get("endOffset")
            names = sorted(key.removeprefix(f"{bucket}/") for key in HOLDS if key.startswith(f"{bucket}/"))
            names = [
                one for one in names if one.startswith(prefix) and one >= begin and (not end or one < end)
            ]
            return self._answer(200, {"items": [{"name": one, "size": "1"} for one in names]})
        if f"{bucket}/{name}" not in HOLDS:
            return self._answer(404)
        content, generation = HOLDS[f"{bucket}/{name}"]
        if query.get("ifGenerationNotMatch") == str(generation):
            return self._answer(304)
        if "ifGenerationMatch" in query and query["ifGenerationMatch"] != str(generation):
            return self._answer(412)
        headers = {"x_goog_generation": generation}
        span = self.headers.get("Range")
        if not span:
            return self._answer(200, content, **headers)
        first, last = span.removeprefix("bytes=").split("-")
        begin = int(first) if first else max(len(content) - int(last), 0)
        end = min(int(last) + 1, len(content)) if first and last else len(content)
        headers["Content_Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        return self._answer(206, content[begin:end], **headers)

    def do_POST(self):
        bucket, _, query = self._asked()
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = f"{bucket}/{query['name']}"
        there = HOLDS.get(name, (b"", 0))[1]
        if "ifGenerationMatch" in query and query["ifGenerationMatch"] != str(there):
            return self._answer(412)
        return self._answer(200, {"name": query["name"], "generation": str(put(name, content))})

    def do_DELETE(self):
        bucket, name, _ = self._asked()
        with _changing:
            found = HOLDS.pop(f"{bucket}/{name}", None)
        return self._answer(204 if found else 404)

    def log_message(self, *arguments):
        pass


class Bucket(fsspec.AbstractFileSystem):
    """The same objects for etils; there are no folders but those that objects lie in."""

    protocol = ("gcs", "gs")
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).removeprefix("gs://").removeprefix("gcs://").strip("/")

    def _names(self, path):
        return [name for name in HOLDS if name.startswith(f"{self._strip_protocol(path)}/")]

    def exists(self, path, **more):
        return self._strip_protocol(path) in HOLDS or bool(self._names(path))

    def isdir(self, path):
        return bool(self._names(path))

    def info(self, path, **more):
        name = self._strip_protocol(path)
        if name in HOLDS:
            return {"name": name, "size": len(HOLDS[name][0]), "type": "file"}
        if self._names(path):
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path, detail=True, **more):
        begin = f"{self._strip_protocol(path)}/"
        below = sorted({begin + name.removeprefix(begin).split("/")[0] for name in self._names(path)})
        return [self.info(name) for name in below] if detail else below

    def makedirs(self, path, exist_ok=False):
        pass

    def mkdir(self, path, create_parents=True, **more):
        pass

    def rm(self, path, recursive=False, maxdepth=None):
        for name in [self._strip_protocol(path), *self._names(path)]:
            HOLDS.pop(name, None)

    rm_file = _rm = rm

    def cat_file(self, path, start=None, end=None, **more):
        return HOLDS[self._strip_protocol(path)][0][start:end]

    def open(self, path, mode="rb", **more):
        import io

        name = self._strip_protocol(path)
        if "r" in mode:
            if name not in HOLDS:
                raise FileNotFoundError(path)
            content = HOLDS[name][0]
            return io.BytesIO(content) if "b" in mode else io.StringIO(content.decode())

        class Written(io.BytesIO):
            def close(self):
                if not self.closed:
                    put(name, self.getvalue())
                super().close()

        return Written() if "b" in mode else io.TextIOWrapper(Written(), "utf-8")


def serve(monkeypatch):
    """Lets gs:// paths mean this; returns the server, to shut down."""
    server = ThreadingHTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://localhost:{server.server_port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    HOLDS.clear()
    return server
