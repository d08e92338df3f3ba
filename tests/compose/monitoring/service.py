"""A small HTTP service with /health: PORT NAME. Odd users may be cached for a moment, /fail is an error of its own."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, NAME = int(sys.argv[1]), sys.argv[2]


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: two of them wait for each other (Nagle), which shows in every latency.
    wbufsize = 65536

    def do_GET(self):
        body = f'{{"path":"{self.path}","from":"{NAME}"}}\n'.encode()
        self.send_response(500 if self.path == "/fail" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        keep = self.path.startswith("/users/") and self.path[-1] in "13579"
        self.send_header("Cache-Control", "max-age=5" if keep else "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nobody reads it."""


ThreadingHTTPServer(("127.0.0.1", PORT), Service).serve_forever()
