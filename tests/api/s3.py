"""A bucket for tests: s3rver (tests/clients), behind a gate that checks each signature with botocore.

s3rver knows S3's operations but takes any signature of version 4; Debian's python3-botocore, Amazon's own signer, checks
them, with the hash of the body and the date. The gate can also be away, silent, or answer with an error.
"""
import atexit
import datetime
import hashlib
import http.client
import http.server
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

from harness import PATIENCE, needs, skip

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients")
ID, SECRET, REGION = "S3RVER", "hunter2/Of+the=bucket", "eu-test-1"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def check_tools():
    needs("node")
    if not os.path.isdir(os.path.join(CLIENTS, "node_modules", "s3rver")):
        skip("npm ci has not been run in tests/clients")
    try:
        import botocore.auth  # noqa: F401
    except ImportError:
        skip("the package python3-botocore is not installed")


def signature_fault(method, target, headers, body):
    """Why Amazon's own signer would have signed the request in another way; None: it would not."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    said = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
                        r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})", headers.get("Authorization", ""))
    if not said:
        return "AccessDenied"
    identity, day, region, names, signature = said.groups()
    names = names.split(";")
    date = headers.get("x-amz-date", "")
    if identity != ID:
        return "InvalidAccessKeyId"
    if "host" not in names or "x-amz-date" not in names or names != sorted(names) or not date.startswith(day):
        return "AccessDenied"
    if headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
        return "XAmzContentSHA256Mismatch"
    then = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    if abs((datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()) > 900:
        return "RequestTimeTooSkewed"
    request = AWSRequest(method=method, url=f"http://{headers['host']}{target}", data=body,
                         headers={name: headers[name] for name in names})
    request.context["timestamp"] = date
    auth = S3SigV4Auth(Credentials(ID, SECRET), "s3", REGION)
    right = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return None if right == signature and region == REGION else "SignatureDoesNotMatch"


class Gate(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def refuse(self, status, code):
        text = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def handle_any(self):
        bucket = self.server.bucket
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket.requests.append((self.command, self.path))
        if bucket.answer:
            return self.refuse(*bucket.answer)
        fault = signature_fault(self.command, self.path, self.headers, body)
        if fault:
            return self.refuse(403, fault)
        link = http.client.HTTPConnection("127.0.0.1", bucket.inner, timeout=PATIENCE)
        link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            link.putheader(name, value)
        link.endheaders(body)
        answer = link.getresponse()
        data = answer.read()
        link.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "keep-alive"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = handle_any

    def setup(self):
        super().setup()
        self.server.bucket.links.add(self.connection)


class Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, address):
        pass  # a client that went away


class Bucket:
    def __init__(self, name="images"):
        check_tools()
        self.name = name
        self.folder = tempfile.mkdtemp(prefix="imagend-s3-")
        self.inner, self.port = free_port(), 0
        self.requests, self.links, self.answer = [], set(), None
        self.process = subprocess.Popen(
            ["node", os.path.join(CLIENTS, "s3.mjs"), self.folder, str(self.inner), name],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        atexit.register(self.process.kill)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.inner), 1).close()
                break
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "s3rver does not start"
                time.sleep(0.02)
        self.listener = None
        self.open()

    def open(self, tls=None):
        """tls: an SSLContext. The port is the same each time."""
        self.listener = Listener(("127.0.0.1", self.port), Gate)
        self.port = self.listener.server_address[1]
        if tls:
            self.listener.socket = tls.wrap_socket(self.listener.socket, server_side=True)
        self.listener.bucket = self
        threading.Thread(target=self.listener.serve_forever, args=(0.02,), daemon=True).start()

    def away(self):
        """Nobody listens, and connections are cut."""
        self.listener.shutdown()
        self.listener.server_close()
        for link in self.links:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.links = set()

    def close(self):
        self.away()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def key_file(self, secret=SECRET):
        path = os.path.join(self.folder, "key")
        with open(path + ".new", "w") as f:
            f.write(f"{ID}\n{secret}\n")
        os.rename(path + ".new", path)
        return path

    def flags(self, prefix="drawn"):
        return ["--result-store", f"s3://{self.name}" + (f"/{prefix}" if prefix else ""), "--s3-endpoint",
                f"http://127.0.0.1:{self.port}", "--s3-region", REGION, "--s3-key-file", self.key_file()]

    def objects(self):
        """Keys and contents, as s3rver has them on disk."""
        root, found = os.path.join(self.folder, self.name), {}
        for folder, _, files in os.walk(root):
            for name in files:
                if name.endswith("._S3rver_object"):
                    path = os.path.join(folder, name)
                    key = urllib.parse.unquote(os.path.relpath(path, root)[:-len("._S3rver_object")])
                    try:
                        with open(path, "rb") as f:
                            found[key] = f.read()
                    except FileNotFoundError:
                        pass
        return found

    def put(self, key, data=b"x"):
        """An object that the service does not know."""
        link = http.client.HTTPConnection("127.0.0.1", self.inner, timeout=PATIENCE)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        link.request("PUT", f"/{self.name}/{key}", data, {
            "x-amz-date": now, "x-amz-content-sha256": hashlib.sha256(data).hexdigest(), "Authorization":
            f"AWS4-HMAC-SHA256 Credential={ID}/{now[:8]}/{REGION}/s3/aws4_request, SignedHeaders=host, Signature=0"})
        answer = link.getresponse()
        assert answer.status == 200, answer.read()
        link.close()
