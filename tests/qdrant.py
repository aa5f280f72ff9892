"""Qdrant's own engine behind the REST calls that its client makes, on this machine."""

import contextlib
import json
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from qdrant_client import models
from qdrant_client.local.qdrant_local import QdrantLocal


class QdrantServer(ThreadingHTTPServer):
    """Serve an engine in memory at `url`."""

    daemon_threads = True

    def __init__(self, key: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        self.engine = QdrantLocal(location=":memory:")
        self.lock = threading.Lock()
        self.key = key
        """What the header api-key must be; empty for anything."""
        self.left: int | None = None
        """So many more requests are answered, then none; None: all."""
        self.old = False
        """Whether it knows no metadata, as before 1.16."""
        self.calls: list[str] = []
        """Method and path of all requests so far."""
        self.bodies: list[Any] = []
        """What was in them."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Calls(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: QdrantServer

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        server = self.server
        if server.old and body:
            body.pop("metadata", None)
        server.calls.append(f"{self.command} {path}")
        server.bodies.append(body)
        if server.key and self.headers.get("api-key") != server.key:
            return self._say(401, {"status": {"error": "Must provide an API key"}})
        if server.left is not None:
            server.left -= 1
            if server.left < 0:
                self.close_connection = True
                return None
        try:
            with server.lock:
                result = answer(server.engine, self.command, path.strip("/").split("/"), body)
        except Exception as error:
            return self._say(400, {"status": {"error": str(error)}})
        return self._say(200, result)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _say(self, status: int, result: Any) -> None:
        content = json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def answer(engine: QdrantLocal, method: str, path: list[str], body: Any) -> Any:
    """What the server says to a call."""
    if path == [""]:
        return {"title": "qdrant", "version": "1.20.0"}
    if path == ["collections"]:
        return _result(engine.get_collections())
    name, call = path[1], f"{method} {'/'.join(path[2:])}".strip()
    match call:
        case "GET exists":
            return _result({"exists": engine.collection_exists(name)})
        case "GET":
            return _result(engine.get_collection(name))
        case "PUT":
            vectors = models.VectorParams(**body["vectors"])
            return _result(engine.create_collection(name, vectors, metadata=body.get("metadata")))
        case "DELETE":
            return _result(engine.delete_collection(name))
        case "PATCH":
            return _result(engine.update_collection(name, metadata=body["metadata"]))
        case "PUT index":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                schema = models.PayloadSchemaType(body["field_schema"])
                return _result(engine.create_payload_index(name, body["field_name"], schema))
        case "PUT points":
            return _result(engine.upsert(name, [models.PointStruct(**p) for p in body["points"]]))
        case "POST points":
            return _result(engine.retrieve(name, body["ids"], with_payload=body["with_payload"]))
        case "POST points/delete":
            return _result(engine.delete(name, models.PointIdsList(**body)))
        case "POST points/count":
            condition = models.CountRequest(**body).filter
            return _result(engine.count(name, count_filter=condition, exact=True))
        case "POST points/query":
            request = models.QueryRequest(**body)
            query: Any = request.query
            hits = engine.query_points(
                name, query, query_filter=request.filter, limit=request.limit or 10
            )
            return _result(hits)
    raise AssertionError(call)


def _result(value: Any) -> dict[str, Any]:
    return {"result": TypeAdapter(Any).dump_python(value, mode="json"), "status": "ok", "time": 0}


@contextlib.contextmanager
def qdrant_server(key: str = "") -> Iterator[QdrantServer]:
    """Serve in the block."""
    with QdrantServer(key) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
            server.engine.close()
