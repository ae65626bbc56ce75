"""HTTP of the guest (http_request, http_status_code, http_headers) and `url` in a manifest, from a local server."""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from observe import script
from probe import ALL, Probe

TINY = b'(module (func (export "f") (result i32) (i32.const 7)))'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        size = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(size)
        self.server.requests.append([self.command, self.path, body.decode("latin-1"),
                                     {k.lower(): v for k, v in self.headers.items() if k.lower().startswith(("x-", "content-type", "authorization"))}])
        path = self.path.split("?")[0]
        status, content, headers = 200, b"hello from the server", {"X-Test": "yes", "X-Twice": "a"}
        if path == "/echo":
            content = body
        elif path.startswith("/status/"):
            status = int(path.rsplit("/")[-1])
        elif path == "/empty":
            content = b""
        elif path.startswith("/bytes/"):
            content = b"x" * int(path.rsplit("/")[-1])
        elif path == "/slow":
            time.sleep(2)
        elif path == "/redirect":
            status, headers = 302, {"Location": f"http://127.0.0.1:{self.server.server_port}/echo"}
        elif path == "/redirect-elsewhere":
            status, headers = 302, {"Location": f"http://localhost:{self.server.server_port}/secret"}
        elif path == "/loop":
            status, headers = 302, {"Location": "/loop"}
        elif path == "/wasm":
            content = TINY
        elif path == "/wasm-with-header":
            status, content = (200, TINY) if self.headers.get("x-key") == "open" else (403, b"no")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if path == "/twice":
            self.send_header("X-Twice", "b")
        if path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
            return
        no_body = self.command == "HEAD" or status in (204, 304)
        if not no_body:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not no_body:
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_PURGE = answer


def server():
    it = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it.daemon_threads = True
    it.requests = []
    threading.Thread(target=it.serve_forever, daemon=True).start()
    it.base = f"http://127.0.0.1:{it.server_port}"
    return it


HOSTS = {"allowed_hosts": ["127.0.0.1"]}


def request(p, asked, body=None):
    """One request by the guest: status and body."""
    text = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    block = yield from p.put(text)
    content = 0 if body is None else (yield from p.put(body))
    answer = yield "http_request", block, content
    return [(yield "http_status_code"), (yield from p.get(answer))]


@script(ALL)
def requests(t):
    """Methods, headers, bodies, statuses; seen from both ends."""
    web = server()
    cases = {
        "get": ({"url": web.base + "/a?b=c"}, None),
        "explicit get": ({"url": web.base + "/a", "method": "GET"}, None),
        "lower-case method": ({"url": web.base + "/a", "method": "get"}, None),
        "post": ({"url": web.base + "/echo", "method": "POST"}, b"the body"),
        "post without body": ({"url": web.base + "/echo", "method": "POST"}, None),
        "put": ({"url": web.base + "/echo", "method": "PUT"}, b"put this"),
        "delete": ({"url": web.base + "/echo", "method": "DELETE"}, None),
        "patch": ({"url": web.base + "/echo", "method": "PATCH"}, b"patch"),
        "head": ({"url": web.base + "/a", "method": "HEAD"}, None),
        "headers": ({"url": web.base + "/a", "headers": {"X-One": "1", "x-two": "2"}}, None),
        "content type": ({"url": web.base + "/echo", "method": "POST", "headers": {"Content-Type": "text/x-y"}}, b"typed"),
        "null fields": ({"url": web.base + "/a", "method": None}, None),
        "404": ({"url": web.base + "/status/404"}, None),
        "500": ({"url": web.base + "/status/500"}, None),
        "204": ({"url": web.base + "/status/204"}, None),
        "empty body": ({"url": web.base + "/empty"}, None),
        "chunked": ({"url": web.base + "/chunked"}, None),
    }
    for name, (asked, body) in cases.items():
        def steps(p):
            t.see(name, (yield from request(p, asked, body)))

        t.result(f"{name}: call", Probe(t, HOSTS).run(steps))
    t.see("at the server", web.requests)


@script()
def get_with_body(t):
    web = server()

    def steps(p):
        t.see("answer", (yield from request(p, {"url": web.base + "/echo"}, b"a body")))

    t.result("call", Probe(t, HOSTS).run(steps))
    t.see("at the server", web.requests)


@script()
def bad_requests(t):
    """Requests that are no such thing."""
    web = server()
    cases = {
        "no JSON": b"{", "no url": {}, "number": {"url": 5}, "no scheme": {"url": "127.0.0.1"}, "ftp": {"url": "ftp://127.0.0.1/"},
        "file": {"url": "file:///etc/passwd"}, "unknown field": {"url": web.base + "/a", "unknown": 1},
        "header of two lines": {"url": web.base + "/a", "headers": {"X-A": "a\r\nX-B: b"}},
        "header name with space": {"url": web.base + "/a", "headers": {"X A": "a"}},
        "empty url": {"url": ""}, "odd method": {"url": web.base + "/echo", "method": "PURGE"},
        "method with space": {"url": web.base + "/a", "method": "GE T"},
        "refused port": {"url": "http://127.0.0.1:1/"}, "not UTF-8": b'{"url":"\xff"}',
    }
    for name, asked in cases.items():
        def steps(p):
            t.see(name, (yield from request(p, asked)))

        t.result(f"{name}: call", Probe(t, HOSTS).run(steps))
    t.see("at the server", web.requests)


@script(ALL)
def takes_over(t):
    """http_request frees request and body; the answer is another block."""
    web = server()

    def steps(p):
        text = json.dumps({"url": web.base + "/echo", "method": "POST"}).encode()
        asked, body = (yield from p.put(text)), (yield from p.put(b"the body"))
        answer = yield "http_request", asked, body
        t.see("freed", (yield from p.each("length", (asked, body))))
        t.see("another block", answer not in (asked, body))
        yield "free", asked
        yield "free", body
        t.see("answer", (yield from p.get(answer)))

    t.result("run", Probe(t, HOSTS).run(steps))


@script(("direct", "linked"))
def status_and_headers(t):
    """http_status_code and http_headers are of the last request; headers only when allowed."""
    web = server()

    def steps(p):
        t.see(f"{label}: status before", (yield "http_status_code"))
        t.see(f"{label}: headers before", (yield from p.get((yield "http_headers"))))
        yield from request(p, {"url": web.base + "/status/404"})
        t.see(f"{label}: status", (yield "http_status_code"))
        yield from request(p, {"url": web.base + "/twice"})
        t.see(f"{label}: status of the last", (yield "http_status_code"))
        handle = yield "http_headers"
        text = yield from p.get(handle)
        names = json.loads(text) if text else None
        t.see(f"{label}: headers", names and {k: v for k, v in names.items() if k.startswith("x-")})
        t.see(f"{label}: asked again", (yield "http_headers") != 0)

    def later(p):
        t.see(f"{label}: status in the next call", (yield "http_status_code"))
        text = yield from p.get((yield "http_headers"))
        t.see(f"{label}: headers in the next call", text and sorted(k for k in json.loads(text) if k.startswith("x-")))

    label = "not allowed"
    t.result(label, Probe(t, HOSTS).run(steps))
    label = "allowed"
    probe = Probe(t, HOSTS)
    t.lib.extism_plugin_allow_http_response_headers(probe.plugin.handle)
    t.result(label, probe.run(steps))
    t.result("next", probe.run(later))


@script()
def allowed_hosts(t):
    """Which hosts a request may name."""
    web = server()
    port = web.server_port
    cases = {
        "absent": (None, "127.0.0.1"), "empty": ([], "127.0.0.1"), "exact": (["127.0.0.1"], "127.0.0.1"),
        "another": (["example.com"], "127.0.0.1"), "star": (["*"], "127.0.0.1"), "prefix": (["127.*"], "127.0.0.1"),
        "suffix": (["*.0.1"], "127.0.0.1"), "question mark": (["127.0.0.?"], "127.0.0.1"),
        "class": (["127.0.0.[0-3]"], "127.0.0.1"), "with port": ([f"127.0.0.1:{port}"], "127.0.0.1"),
        "with scheme": (["http://127.0.0.1"], "127.0.0.1"), "second of two": (["a.b", "127.0.0.1"], "127.0.0.1"),
        "upper case entry": (["LOCALHOST"], "localhost"), "upper case url": (["localhost"], "LOCALHOST"),
        "localhost": (["localhost"], "localhost"), "name is not address": (["localhost"], "127.0.0.1"),
        "bad glob": (["[", "127.0.0.1"], "127.0.0.1"), "only a bad glob": (["["], "127.0.0.1"),
        "braces": (["{127.0.0.1,x}"], "127.0.0.1"), "part of the name": (["127"], "127.0.0.1"),
    }
    for name, (hosts, host) in cases.items():
        def steps(p):
            t.see(name, (yield from request(p, {"url": f"http://{host}:{port}/a"})))

        manifest = {} if hosts is None else {"allowed_hosts": hosts}
        probe = t.created(f"{name}: created", lambda: Probe(t, manifest))
        if probe:
            t.result(f"{name}: call", probe.run(steps))


@script()
def user_info(t):
    """What stands before the @ is not the host."""
    web = server()

    def steps(p):
        t.see("answer", (yield from request(p, {"url": f"http://allowed@127.0.0.1:{web.server_port}/a"})))

    t.result("call", Probe(t, {"allowed_hosts": ["allowed"]}).run(steps))
    t.see("at the server", web.requests)


@script()
def redirects(t):
    """Redirects within the allowed hosts and out of them."""
    web = server()
    for path in ("/redirect", "/redirect-elsewhere", "/loop"):
        def steps(p):
            t.see(path, (yield from request(p, {"url": web.base + path})))

        t.result(f"{path}: call", Probe(t, HOSTS).run(steps))
    t.see("secret asked for", any(r[1] == "/secret" for r in web.requests))


@script()
def sizes(t):
    """max_http_response_bytes: below, at, above; default."""
    web = server()
    for limit, size in ((100, 99), (100, 100), (100, 101), (0, 0), (0, 1), (None, 3 << 20)):
        def steps(p):
            answer = yield from request(p, {"url": f"{web.base}/bytes/{size}"})
            t.see(f"{limit}: {size}", [answer[0], len(answer[1] or b"")])

        manifest = dict(HOSTS, memory={"max_http_response_bytes": limit})
        probe = Probe(t, manifest)
        # Reading three megabytes by single loads would take long: the host reads them.
        probe.get = lambda block, probe=probe: host_get(probe, block)
        t.result(f"{limit}: {size}: call", probe.run(steps))


def host_get(probe, block):
    yield "memory_bytes"
    return probe.current.block(block) if block else None


@script(deadline=8)
def timeout(t):
    """timeout_ms bounds a request as well."""
    web = server()

    def steps(p):
        t.see("answer", (yield from request(p, {"url": web.base + "/slow"})))

    started = time.monotonic()
    result = Probe(t, dict(HOSTS, timeout_ms=300)).run(steps)
    t.see("code", result.code)
    t.error("error", result.error)
    t.see("in time", time.monotonic() - started < 1.5)


@script(deadline=8)
def cancelled(t):
    """Cancel ends a waiting request."""
    web = server()
    probe = Probe(t, HOSTS)

    def steps(p):
        threading.Timer(0.3, probe.plugin.cancel).start()
        t.see("answer", (yield from request(p, {"url": web.base + "/slow"})))

    started = time.monotonic()
    result = probe.run(steps)
    t.see("code", result.code)
    t.error("error", result.error)
    t.see("in time", time.monotonic() - started < 1.5)


@script()
def urls_in_manifests(t):
    """`url` entries: with hash, headers, method; no allowed_hosts needed."""
    web = server()
    digest = hashlib.sha256(TINY).hexdigest()
    cases = {
        "plain": {"url": web.base + "/wasm"}, "hash": {"url": web.base + "/wasm", "hash": digest},
        "hash in upper case": {"url": web.base + "/wasm", "hash": digest.upper()},
        "wrong hash": {"url": web.base + "/wasm", "hash": "0" * 64}, "404": {"url": web.base + "/status/404"},
        "no module": {"url": web.base + "/echo"}, "header": {"url": web.base + "/wasm-with-header", "headers": {"x-key": "open"}},
        "header missing": {"url": web.base + "/wasm-with-header"}, "method": {"url": web.base + "/wasm", "method": "POST"},
        "null fields": {"url": web.base + "/wasm", "method": None, "hash": None, "name": None},
        "refused port": {"url": "http://127.0.0.1:1/x"}, "no url": {"url": "nonsense"}, "redirect": {"url": web.base + "/redirect"},
        "name": {"url": web.base + "/wasm", "name": "main"},
    }
    for name, entry in cases.items():
        plugin = t.created(name, lambda: t.lib.plugin({"wasm": [entry]}))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))
    t.see("methods", [[r[0], r[1]] for r in web.requests])


@script(env={"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"})
def proxy(t):
    """The proxy variables are heeded: with a proxy that is not there a request fails."""
    web = server()

    def steps(p):
        t.see("answer", (yield from request(p, {"url": web.base + "/a"})))

    t.result("call", Probe(t, HOSTS).run(steps))
    t.see("at the server", len(web.requests))
