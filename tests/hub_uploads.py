"""What the stand-in for the hubs answers to uploads: a part of the server in `hub_server.py`."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

GOOD_TOKEN = "hf_good"
# Whom the token belongs to, on both hubs, and where else the same person may write.
USER, ORGANIZATION = "me", "org"

_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(tree|preupload|commit)/main)?")
_LFS_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_KAGGLE_CREATE = re.compile(
    r"/api/v1/(?:models|blobs)\.(?:Model|Blob)ApiService/"
    r"(GetModel|CreateModel|CreateModelInstance|CreateModelInstanceVersion|StartBlobUpload)"
)


class UploadHandler(BaseHTTPRequestHandler):
    """Answers the requests of an upload. The base class of the server's handler.

    Content arrives before it is named: in `hub.blobs`, by hash on the Hugging Face Hub and by token
    on Kaggle.
    """

    hub: Any

    def do_PUT(self):
        path = self._record()
        self.hub.blobs[path.rpartition("/")[2]] = self._body()
        self._send(200)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # ---- Hugging Face

    def _answer_huggingface_upload(self, path: str, body: bytes) -> bool:
        """Answer the request if it belongs to an upload, and return whether it does."""
        if path == "/api/repos/create":
            self._create_repository(**json.loads(body))
        elif path == "/api/validate-yaml":
            card = json.loads(body)["content"]
            errors = [] if card.startswith("---\n") else [{"message": "no metadata"}]
            self._send_json({"errors": errors, "warnings": []}, 400 if errors else 200)
        elif match := _API.fullmatch(path):
            self._answer_api(match[1], match[2], body)
        elif match := _LFS_BATCH.fullmatch(path):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            self._send_json({"transfer": "basic", "objects": objects})
        else:
            return False
        return True

    def _may_write(self, owner: str) -> bool:
        if self.headers.get("Authorization") != f"Bearer {GOOD_TOKEN}":
            self._send_json({"error": "Invalid username or password."}, 401)
        elif owner not in {USER, ORGANIZATION}:
            self._send_json({"error": f"You may not write to {owner}."}, 403)
        else:
            return True
        return False

    def _create_repository(self, name: str, organization: str | None, **_):
        owner = organization or USER
        if not self._may_write(owner):
            return
        name = f"{owner}/{name}"
        exists = name in self.hub.repositories
        if not exists:
            self.hub.add_huggingface(name, {".gitattributes": b"*.h5 filter=lfs"})
        self._send_json({"url": f"{self.hub.url}/{name}"}, 409 if exists else 200)

    def _answer_api(self, name: str, call: str | None, body: bytes):
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._send_json({"error": "Repository not found"}, 404)
        files = dict(repository.commits[repository.references["main"]])
        if call is None:
            return self._send_json({"id": name, "siblings": []})
        if call == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
                for path, data in files.items()
            ]
            return self._send_json(entries)
        if not self._may_write(name.partition("/")[0]):
            return None
        if call == "preupload":
            answer = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".h5") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._send_json({"files": answer})
        for line in body.splitlines():
            self._apply(json.loads(line), files)
        commit = self.hub.add_huggingface(name, files)
        return self._send_json({"commitOid": commit, "commitUrl": f"{self.hub.url}/{name}"})

    def _apply(self, operation: dict, files: dict[str, bytes]) -> None:
        value = operation["value"]
        match operation["key"]:
            case "header":
                assert value["summary"]
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
                assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]
            case "deletedFile":
                del files[value["path"]]
            case other:
                raise AssertionError(other)

    # ---- Kaggle

    def _answer_kaggle_upload(self, path: str, body: bytes) -> bool:
        """Answer the request if it belongs to an upload, and return whether it does."""
        match = _KAGGLE_CREATE.fullmatch(path)
        if match is None:
            return False
        request = json.loads(body)
        if "Authorization" not in self.headers:
            self._send_json({"code": 401, "message": "Unauthenticated"}, 401)
        elif match[1] == "StartBlobUpload":
            token = f"blob{len(self.hub.blob_names)}"
            self.hub.blob_names[token] = request["name"]
            url = f"http://localhost/kaggle-upload/{token}"
            self._send_json({"token": token, "createUrl": url})
        elif request["ownerSlug"] != USER:
            self._send_json({"code": 403, "message": "Permission denied"}, 403)
        else:
            self._answer_kaggle_model(match[1], request)
        return True

    def _answer_kaggle_model(self, call: str, request: dict):
        model = f"{USER}/{request.get('modelSlug') or request['slug']}"
        if call == "GetModel":
            exists = model in self.hub.created_models
            missing = {"code": 404, "message": "Model not found"}
            return self._send_json({} if exists else missing, 200 if exists else 404)
        if call == "CreateModel":
            self.hub.created_models.add(model)
            return self._send_json({})
        named = request["body"] if call == "CreateModelInstance" else request
        framework = named["framework"].removeprefix("MODEL_FRAMEWORK_").lower()
        variant = f"{model}/{framework}/{named['instanceSlug']}"
        if call == "CreateModelInstance" and variant in self.hub.models:
            return self._send_json({"error": "It exists", "errorCode": 409})
        self.hub.add_kaggle(variant, dict(self._uploaded(request["body"])))
        return self._send_json({})

    def _uploaded(self, folder: dict, prefix: str = ""):
        for file in folder.get("files", []):
            token = file["token"]
            yield prefix + self.hub.blob_names[token], self.hub.blobs[token]
        for inner in folder.get("directories", []):
            yield from self._uploaded(inner, f"{prefix}{inner['name']}/")
