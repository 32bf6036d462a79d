"""Many clients that upload large images at once."""
import os
import threading
import time

from harness import Server, main
from test_inputs import BOUNDARY, form, noise


def peak(s):
    with open(f"/proc/{s.process.pid}/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM"))


def ask_first(s, body):
    """Uploads a form as curl does, which waits to be told to go on. Returns (status, headers)."""
    with s.raw(f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\n"
               f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
               f"Content-Length: {len(body)}\r\n\r\n".encode(), read=False, timeout=240) as c:
        got = c.recv(1 << 16)
        if got.startswith(b"HTTP/1.1 100"):
            c.sendall(body)
            got = got.split(b"\r\n\r\n", 1)[1]
        while part := c.recv(1 << 16):
            got += part
    head = got.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(head[0].split()[1]), dict(line.lower().split(": ", 1) for line in head[1:])


def test_memory_stays_bounded_while_many_upload():
    """64 clients with 20 MB each: those that fit are taken, the others are told to come again. A sanitizer's own memory
    says nothing of the program's, and its time is long: there it is fewer and smaller ones, uncounted."""
    counted = not {"ASAN_OPTIONS", "TSAN_OPTIONS"} & set(os.environ)
    limit, count, edge = (128 << 20, 64, 2600) if counted else (16 << 20, 24, 1000)
    s = Server("--input-bytes", str(limit), "--queue-limit", "200", "--receive-timeout", "240")
    try:
        image = noise(edge)
        assert not counted or 20_000_000 < len(image) < 22_000_000
        body = form([("prompt", "a"), ("size", "64"), ("image", image)])
        said, lock = {}, threading.Lock()

        def upload(until):
            while True:
                status, headers = ask_first(s, body)
                with lock:
                    said[status] = said.get(status, 0) + 1
                assert status in (202, 429, 503), (status, headers)
                if status == 202 or time.monotonic() > until:
                    return
                assert int(headers["retry-after"]) >= 1
                time.sleep(1)
        assert ask_first(s, body)[0] == 202
        before = peak(s)
        until = time.monotonic() + 200
        threads = [threading.Thread(target=upload, args=(until,)) for _ in range(count)]
        for t in threads:
            t.start()
        # An ordinary request finds room meanwhile.
        assert s.post("/v1/jobs", {"prompt": "a", "size": 64}).status == 202
        for t in threads:
            t.join()
        assert said.get(202) == count, said
        assert said.get(503), f"nobody had to come again: {said}"
        print(f"peak of {count} uploads: {peak(s) >> 20} MB, of one: {before >> 20} MB; {said}")
        # The limit, for what arrives and what is looked at, and the pixels of two at a time.
        assert not counted or peak(s) < limit + 4 * before, (peak(s) >> 20, before >> 20)
    finally:
        assert s.close() == 0


if __name__ == "__main__":
    main(globals())
