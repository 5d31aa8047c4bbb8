"""A server that answers as the Hugging Face Hub does, with the folders of a directory as its datasets."""
import hashlib
import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0" * 39 + "1"


class Handler(BaseHTTPRequestHandler):
    "The few questions that `datasets` and `huggingface_hub` ask."

    def __init__(self, *args, root: Path, asked: list):
        self.root, self.asked = root, asked
        super().__init__(*args)

    def log_message(self, *args): pass

    def reply(self, body: bytes, status: int = 200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def say(self, value): self.reply(json.dumps(value).encode(), Content_Type="application/json")

    def entries(self, name: str, folder: str = "", recursive: bool = True) -> list[dict]:
        found = (self.root / name / folder).rglob("*") if recursive else (self.root / name / folder).glob("*")
        return [{"type": "file" if path.is_file() else "directory", "path": str(path.relative_to(self.root / name)), "size": path.stat().st_size, "oid": COMMIT} for path in sorted(found)]

    def do_HEAD(self): self.do_GET()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = "/".join(urlsplit(self.path).path.split("/")[3:5])
        self.say([entry for entry in self.entries(name) if entry["path"] in asked["paths"]])

    def do_GET(self):
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        if parts[:2] == ["api", "datasets"] and (self.root / "/".join(parts[2:4])).is_dir():
            name = "/".join(parts[2:4])
            if parts[4:5] == ["tree"]:
                return self.say(self.entries(name, "/".join(parts[6:]), "recursive=true" in address.query.lower()))
            files = [{"rfilename": entry["path"]} for entry in self.entries(name) if entry["type"] == "file"]
            return self.say({"_id": name, "id": name, "sha": COMMIT, "private": False, "siblings": files, "tags": [], "downloads": 0, "likes": 0})
        if parts[:1] == ["datasets"] and parts[3:4] == ["resolve"]:
            path = self.root / "/".join(parts[1:3]) / "/".join(parts[5:])
            if path.is_file():
                body = path.read_bytes()
                if self.command == "GET":
                    self.asked.append(str(path.relative_to(self.root)))
                return self.reply(body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', Content_Type="application/octet-stream")
            return self.reply(b"", 404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        self.reply(b"{}", 404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")


class SmallHub:
    "The server, running inside a `with`; `.asked` lists the files that were fetched."

    def __init__(self, root: Path):
        self.asked = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, root=root, asked=self.asked))
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
