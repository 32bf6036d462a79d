"""Errors at startup: one sentence that names the option, and nothing is left behind."""
import os
import subprocess
import tempfile

from harness import PROGRAM, Server, main


def start(*flags):
    """Exit status and what was said, of a server that must not start."""
    r = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--store", "memory", *flags],
                       capture_output=True, text=True, timeout=30)
    lines = [line for line in r.stderr.splitlines() if line.startswith("imagend: ")]
    assert len(lines) == 1, (flags, r)
    return r.returncode, lines[0]


def test_what_must_go_together():
    with tempfile.TemporaryDirectory() as folder:
        def secret(name, data):
            path = os.path.join(folder, name)
            with open(path, "wb") as f:
                f.write(data)
            return path

        allow = ("--webhook-allow", "hooks.example.com", "--webhook-secret-file")
        for flags, says in (
                (("--webhook-allow", "hooks.example.com"), "webhook-allow needs webhook-secret-file"),
                ((*allow, folder + "/none"), "none"),
                ((*allow, secret("short", b"x" * 15 + b"\n" + b"y" * 40)), "at least 16 bytes"),
                ((*allow, secret("empty", b"")), "at least 16 bytes"),
                ((*allow, secret("large", b"x" * 5000)), "larger than 4096 bytes"),
                (("--tls-cert", "x"), "tls-key is empty"),
                (("--tls-key", "x"), "tls-cert"),
                (("--keys-file", folder + "/none"), "none"),
                (("--host-names", "http://a.example"), "is not a host name"),
                (("--host-names", "a.example:80"), "is not a host name"),
                (("--cors-origins", "a.example"), "is not an origin"),
                (("--cors-origins", "https://a.example/"), "is not an origin"),
                (("--public-url", "ftp://a.example"), "is not a URL"),
                (("--trusted-proxies", "10.0.0.0/33"), "trusted-proxies"),
                (("--listen", "0.0.0.0:0"), "set keys-file, or allow-open"),
                (("--listen", "here"), "is not HOST:PORT"),
                (("--listen", ":0"), "set keys-file, or allow-open"),
                (("--model", "missing"), "there is no model in missing")):
            status, text = start(*flags)
            assert status == 1 and says in text, (flags, status, text)
        # Just long enough; what follows the first line does not count.
        s = Server(*allow, secret("enough", b"x" * 16 + b"\ny"), "--store", "memory")
        assert s.close() == 0


def test_wrong_options_exit_with_2():
    for flags, says in ((("--no-such-option",), "unknown option"), (("--slots", "257"), "from 0 to 256"),
                        (("--queue-limit",), "needs a value"), (("--store", "disk"), "one of sqlite, memory, postgres")):
        r = subprocess.run([PROGRAM, "serve", *flags], capture_output=True, text=True, timeout=30)
        assert r.returncode == 2 and says in r.stderr and r.stderr.count("\n") == 1, (flags, r)


def test_an_address_without_a_host_is_every_address():
    s = Server("--allow-open", "--listen", ":0")
    try:
        assert s.get("/healthz").status == 200 and "listening on http://0.0.0.0:" in s.log
    finally:
        assert s.close() == 0


main(globals())
