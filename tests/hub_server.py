"""A local server that stands in for the Hugging Face Hub, Kaggle and a plain file host in tests.

It speaks as much of their protocols as the real client libraries use, keeps a record of what it was
asked, and can be told to break off. The clients are pointed at it by environment variables alone
(`environment`), so they can run in a subprocess too: Hugging Face's through `HF_ENDPOINT`, Kaggle's
through `KAGGLE_API_ENVIRONMENT=LOCALHOST`, which means `http://localhost`, and this server as the
proxy that all names but 127.0.0.1 are reached by.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hub_uploads import GOOD_TOKEN, UploadHandler

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_KAGGLE_CALL = re.compile(r"/api/v1/models\.ModelApiService/(\w+)")

_KAGGLE_MOUNT = "/kaggle-jwt-handler/AttachDatasourceUsingJwtRequest"

Files = dict[str, bytes]


def directory_files(directory: Path) -> Files:
    """Return the files of a directory, to be served."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@dataclass
class Repository:
    """A model repository: the files of each commit, and the commit of each branch or tag.

    Attributes:
        gated: whether only those may read it who have accepted its terms.
        accepted: whether the user has.
    """

    commits: dict[str, Files] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    accepted: bool = True


@dataclass
class Model:
    """A Kaggle model variant: the files of versions 1, 2, ..."""

    versions: list[Files] = field(default_factory=list)
    restricted: bool = False


@dataclass
class Fault:
    """What goes wrong, once, when a file whose path ends in `suffix` is downloaded.

    Attributes:
        after: how many bytes are sent first.
        stall: then wait until the server closes, instead of hanging up.
        status: send nothing but this HTTP status.
    """

    suffix: str
    after: int = 0
    stall: bool = False
    status: int | None = None


class HubServer:
    """The server; use it as a context manager.

    Attributes:
        requests: (method, path) of every request so far.
        resumed: (path, offset) of every download so far that began in the middle.
        faults: what will go wrong; each is removed when it has.
        files: plain files by path, such as `/wheels/x.whl`; a path that ends in `/` is a page.
        repositories: what is on the Hugging Face Hub, by name.
        models: what is on Kaggle, by variant.
    """

    def __init__(self):
        self.requests: list[tuple[str, str]] = []
        self.resumed: list[tuple[str, int]] = []
        self.faults: list[Fault] = []
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, Repository] = {}
        self.models: dict[str, Model] = {}
        self.created_models: set[str] = set()  # on Kaggle, with variants or without
        self.blobs: dict[str, bytes] = {}  # what was uploaded and is in no model yet
        self.blob_names: dict[str, str] = {}
        self.stalled = threading.Event()
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _QuietServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_huggingface(
        self, repository: str, files: Files, revision: str = "main", gated: bool = False
    ) -> str:
        """Push a commit to a branch or tag, and return its hash."""
        model = self.repositories.setdefault(repository, Repository())
        model.gated = gated
        content = repr((repository, len(model.commits), sorted(files.items())))
        commit = hashlib.sha1(content.encode()).hexdigest()
        model.commits[commit] = files
        model.references[revision] = commit
        return commit

    def add_kaggle(self, variant: str, files: Files, restricted: bool = False) -> int:
        """Publish a version of `org/model/framework/variant`, and return its number."""
        model = self.models.setdefault(variant, Model())
        model.restricted = restricted
        model.versions.append(files)
        return len(model.versions)

    def count(self, method: str, suffix: str = "") -> int:
        """Return how many requests of this method there were for paths that end in `suffix`."""
        return sum(m == method and path.endswith(suffix) for m, path in list(self.requests))

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables that point all clients here, and their files below `home`."""
        return {
            "HOME": str(home),
            "USERPROFILE": str(home),
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "huggingface"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_CONFIG_DIR": str(home / "kaggle"),
            "KAGGLEHUB_CACHE": str(home / "kagglehub"),
            "NEXTWORD_CACHE": str(home / "nextword"),
            **dict.fromkeys(("HTTP_PROXY", "http_proxy"), self.url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
        }


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing: clients that hang up are what these tests are about."""


class _Handler(UploadHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._serve()

    def do_GET(self):
        self._serve()

    def do_POST(self):
        data = self._body()
        path = self._record()
        if self._answer_huggingface_upload(path, data) or self._answer_kaggle_upload(path, data):
            return None
        body = json.loads(data or b"{}")
        if path == _KAGGLE_MOUNT:
            return self._attach_in_notebook(body["modelRef"])
        call = _KAGGLE_CALL.fullmatch(path)
        if call is None:
            return self._send(404)
        framework = body["framework"].removeprefix("MODEL_FRAMEWORK_").lower()
        variant = "/".join((body["ownerSlug"], body["modelSlug"], framework, body["instanceSlug"]))
        model = self.hub.models.get(variant)
        if model is None:
            return self._send_json({"code": 404, "message": "Model not found"}, 404)
        if model.restricted and "Authorization" not in self.headers:
            return self._send_json({"code": 403, "message": "Permission denied"}, 403)
        if call[1] == "GetModelInstance":
            return self._send_json({"versionNumber": len(model.versions)})
        version, name = body["versionNumber"], body["path"]
        if version > len(model.versions) or name not in model.versions[version - 1]:
            return self._send_json({"code": 404, "message": "File not found"}, 404)
        location = f"http://localhost/kaggle-storage/{variant}/{version}/{name}"
        return self._send(302, {"Location": location})

    def _attach_in_notebook(self, model: dict):
        """Say where in a Kaggle notebook a model is mounted: `model/framework/variant/version`."""
        slug = "/".join((model["ModelSlug"], model["Framework"], model["InstanceSlug"]))
        newest = len(self.hub.models[f"{model['OwnerSlug']}/{slug}"].versions)
        version = model.get("VersionNumber", newest)
        result = {"mountSlug": f"{slug}/{version}", "versionNumber": version}
        return self._send_json({"wasSuccessful": True, "result": result})

    def _serve(self):
        path = self._record()
        if path.startswith("/kaggle-storage/"):
            *variant, version, name = path.removeprefix("/kaggle-storage/").split("/", 5)
            data = self.hub.models["/".join(variant)].versions[int(version) - 1][name]
            md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
            return self._send_file(path, data, {"x-goog-hash": f"md5={md5}"})
        if path in self.hub.files:
            page = {"Content-Type": "text/html"} if path.endswith("/") else {}
            return self._send_file(path, self.hub.files[path], page)
        if self._answer_huggingface_upload(path, b""):
            return None
        return self._serve_huggingface(path)

    def _serve_huggingface(self, path: str):
        match = _RESOLVE.fullmatch(path)
        if match is None:
            return self._send(404)
        name, revision, filename = match[1], unquote(match[2]), unquote(match[3])
        repository = self.hub.repositories.get(name)
        authorization = self.headers.get("Authorization")
        if authorization not in {None, f"Bearer {GOOD_TOKEN}"}:
            message = "Invalid credentials in Authorization header"
            return self._send(401, {"X-Error-Message": message})
        if repository is None:
            return self._send(401 if authorization is None else 404, _error("RepoNotFound"))
        if repository.gated and authorization is None:
            return self._send(401, _error("GatedRepo"))
        if repository.gated and not repository.accepted:
            return self._send(403, _error("GatedRepo"))
        commit = repository.references.get(revision, revision)
        if commit not in repository.commits:
            return self._send(404, _error("RevisionNotFound"))
        if filename not in repository.commits[commit]:
            return self._send(404, {"X-Repo-Commit": commit, **_error("EntryNotFound")})
        data = repository.commits[commit][filename]
        etag = hashlib.sha1(data).hexdigest()
        return self._send_file(path, data, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _record(self) -> str:
        # A client that takes us for a proxy sends whole URLs.
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        return path

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b""):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_json(self, value: dict, status: int = 200):
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send_file(self, path: str, data: bytes, headers: dict[str, str]):
        fault = None if self.command == "HEAD" else self._next_fault(path)
        if fault is not None and fault.status is not None:
            return self._send(fault.status)
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        start, status = 0, 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
            self.hub.resumed.append((path, start))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if fault is None:
            self.wfile.write(data[start:])
            return None
        self.wfile.write(data[start : start + fault.after])
        self.wfile.flush()
        self.close_connection = True
        if fault.stall:
            self.hub.stalled.set()
            self.hub.closing.wait()
        return None

    def _next_fault(self, path: str) -> Fault | None:
        for fault in self.hub.faults:
            if path.endswith(fault.suffix):
                self.hub.faults.remove(fault)
                return fault
        return None


def _error(code: str) -> dict[str, str]:
    return {"X-Error-Code": code, "X-Error-Message": code}
