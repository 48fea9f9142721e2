"""ClickHouse's HTTP interface in front of the embedded ClickHouse engine (chdb).

In:   HTTP/1.1 requests as clickhouse-server takes them: the statement in `query=`, in the body, or in
      both (then the body is the statement's data); settings and `param_x` as URL parameters.
Out:  the engine's answer, byte for byte, or its error text with `X-ClickHouse-Exception-Code`.
Guarantees: it only forwards. No deduplication, no retry, no rewriting, but for one thing: the data of
      an insert is written to a file and the statement becomes `INSERT INTO t (cols) FROM INFILE '…'
      SETTINGS … FORMAT X`. A statement runs only when the whole body has arrived (Content-Length is
      required). One session, one statement at a time.
On failure: an engine error is answered with 4xx/5xx and the engine's text; a body cut short closes the
      connection and nothing runs; an engine that cannot be brought back to its default settings ends
      the process (the supervisor starts it again).
Not there (refused or ignored): compressed bodies, sessions, users, chunked bodies, choosing query ids.
"""

import argparse
import email.parser
import email.policy
import json
import os
import re
import signal
import socketserver
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

from chdb import session

BODY_BYTES_MAX = 1 << 30
SLOW_SECONDS = 2.0

# Parameters of the HTTP interface itself: never settings of the engine.
NOT_SETTINGS = {
    "query", "database", "user", "password", "quota_key", "default_format", "query_id", "session_id",
    "session_timeout", "session_check", "session_timezone_check", "wait_end_of_query", "compress",
    "decompress", "buffer_size", "stacktrace", "role", "client_protocol_version",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip

NAME = r"(?:`[^`]+`|\"[^\"]+\"|\w+)"
INSERT_WITH_FORMAT = re.compile(
    rf"""\s*INSERT\s+INTO\s+(?:TABLE\s+)?
    (?P<table>{NAME}(?:\.{NAME})?)\s*
    (?P<columns>\((?:`[^`]*`|"[^"]*"|[^()`"])*\))?\s*
    (?:SETTINGS\s+(?P<settings>.+?)\s+)?
    FORMAT\s+(?P<format>\w+)[ \t]*;?[ \t]*(?:\r?\n|$)?""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# Statements that take a SETTINGS clause at their very end, also after FORMAT.
TAKES_SETTINGS = re.compile(r"\s*(?:\(|(?:SELECT|WITH|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN|OPTIMIZE)\b)", re.IGNORECASE)
READS_ONLY = re.compile(r"\s*(?:\(|(?:SELECT|WITH|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN)\b)", re.IGNORECASE)
ERROR_CODE = re.compile(r"Code: (\d+)")

# As clickhouse-server maps its error codes to HTTP (exceptionCodeToHTTPStatus).
HTTP_STATUS = {
    194: 401, 516: 401, 497: 403,
    47: 404, 46: 404, 60: 404, 81: 404, 50: 404, 115: 404, 36: 400, 62: 400, 6: 400, 26: 400, 27: 400,
    43: 400, 53: 400, 69: 400, 70: 400, 72: 400, 117: 400, 131: 413, 48: 501, 159: 408, 160: 408, 202: 503,
}  # fmt: skip


class Refused(Exception):
    """A request that is answered without asking the engine: HTTP status, ClickHouse code, text."""

    def __init__(self, status, code, text):
        super().__init__(text)
        self.status, self.code, self.text = status, code, f"Code: {code}. DB::Exception: {text}"


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def setting_name(name):
    if not re.fullmatch(r"\w+", name):
        raise Refused(404, 115, f"Setting {name} is neither a builtin setting nor a name. (UNKNOWN_SETTING)")
    return name


class Engine:
    """The one session, its data folder, and the lock that lets one statement in at a time."""

    def __init__(self, folder):
        self.bodies = os.path.join(folder, "insert-bodies")
        os.makedirs(self.bodies, exist_ok=True)
        for left_over in os.listdir(self.bodies):
            os.unlink(os.path.join(self.bodies, left_over))
        self.session = session.Session(os.path.join(folder, "engine"))
        self.lock = threading.Lock()
        self.database = "default"

    def run(self, statement, data, settings, params, database, output_format):
        """One statement of one request; `data` is None or the bytes after the statement."""
        with self.lock:
            if database != self.database:
                self.session.query(f"USE `{database}`")
                self.database = database
            insert = INSERT_WITH_FORMAT.match(statement) if data is not None else None
            if insert:
                return self.insert(insert, data, settings, params, output_format)
            if data:
                statement = statement + "\n" + data.decode("utf-8", "surrogateescape")
            clause = ", ".join(f"{name} = {quoted(value)}" for name, value in settings.items())
            if not clause:
                return self.query(statement, params, output_format)
            if TAKES_SETTINGS.match(statement):
                return self.query(f"{statement.rstrip().rstrip(';')}\nSETTINGS {clause}", params, output_format)
            return self.query_between_sets(statement, clause, settings, params, output_format)

    def query(self, statement, params, output_format):
        return self.session.query(statement, output_format, params=params or None)

    def query_between_sets(self, statement, clause, settings, params, output_format):
        """For statements without a SETTINGS clause (CREATE, KILL, …): set before, back to default after."""
        try:
            self.session.query(f"SET {clause}")
            return self.query(statement, params, output_format)
        finally:
            for name in settings:
                try:
                    self.session.query(f"SET {name} = DEFAULT")
                except Exception as error:
                    if ERROR_CODE.search(str(error)) and "UNKNOWN_SETTING" in str(error):
                        continue  # it never was set
                    print(f"cannot take back setting {name}: {error}", file=sys.stderr, flush=True)
                    os._exit(1)

    def insert(self, insert, data, settings, params, output_format):
        path = os.path.join(self.bodies, f"{uuid.uuid4().hex}.bin")
        try:
            with open(path, "wb") as file:
                file.write(data)
            clauses = [insert["settings"]] if insert["settings"] else []
            clauses += [f"{name} = {quoted(value)}" for name, value in settings.items()]
            statement = (
                f"INSERT INTO {insert['table']} {insert['columns'] or ''} FROM INFILE {quoted(path)}"
                + (f" SETTINGS {', '.join(clauses)}" if clauses else "")
                + f" FORMAT {insert['format']}"
            )
            return self.query(statement, params, output_format)
        finally:
            if os.path.exists(path):
                os.unlink(path)

    def close(self):
        with self.lock:
            self.session.close()


class Request:
    """One HTTP request taken apart: statement, data, settings, parameters."""

    def __init__(self, method, target, headers, body):
        url = urllib.parse.urlsplit(target)
        pairs = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        fields = dict(pairs)
        if headers.get("Content-Type", "").startswith("multipart/form-data"):
            fields.update(multipart_fields(headers["Content-Type"], body))
            body = b""
        for name in ("compress", "decompress"):
            if fields.get(name) in ("1", "true"):
                raise Refused(400, 36, f"{name}=1: this front takes and gives plain bodies only. (BAD_ARGUMENTS)")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(400, 36, "Content-Encoding is not supported. (BAD_ARGUMENTS)")
        self.path = url.path
        self.format = fields.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated"
        self.database = fields.get("database") or headers.get("X-ClickHouse-Database") or "default"
        self.query_id = fields.get("query_id") or str(uuid.uuid4())
        self.params = {name[6:]: value for name, value in fields.items() if name.startswith("param_")}
        self.settings = {
            setting_name(name): value
            for name, value in fields.items()
            if name not in NOT_SETTINGS and not name.startswith("param_")
        }
        if "`" in self.database or "\\" in self.database:
            raise Refused(404, 81, f"Database {self.database} does not exist. (UNKNOWN_DATABASE)")
        self.statement, self.data = statement_and_data(fields.get("query", ""), body)
        if not self.statement.strip():
            raise Refused(400, 62, "Syntax error: Empty query. (SYNTAX_ERROR)")
        if method == "GET" and not READS_ONLY.match(self.statement):
            raise Refused(500, 164, "Cannot execute query in readonly mode: use POST. (READONLY)")


def statement_and_data(in_url, body):
    """The statement as text, and its data: bytes, or None where there is none."""
    if in_url.strip():
        has_data = body or INSERT_WITH_FORMAT.fullmatch(in_url)
        return in_url, body if has_data else None
    # Latin-1 maps every byte to one character: positions in the text are positions in the bytes.
    insert = INSERT_WITH_FORMAT.match(body.decode("latin-1"))
    if insert:
        return body[: insert.end()].decode(), body[insert.end() :]
    return body.decode("utf-8", "surrogateescape"), None


def multipart_fields(content_type, body):
    """What the Rust client sends when a query has parameters: `query` and `param_x` as form fields."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    return {
        part.get_param("name", header="Content-Disposition"): part.get_payload(decode=True).decode()
        for part in message.iter_parts()
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 3600

    def do_GET(self):
        if self.path in ("/ping", "/"):
            self.answer(200, b"Ok.\n", {})
        else:
            self.serve(b"")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not length.isdigit():
            self.close_connection = True
            self.refuse(Refused(411, 381, "Content-Length is required, chunked bodies are refused. (HTTP_LENGTH_REQUIRED)"))
            return
        if int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            self.refuse(Refused(413, 131, f"The body is larger than {BODY_BYTES_MAX} bytes. (TOO_LARGE_STRING_SIZE)"))
            return
        body = self.rfile.read(int(length))
        if len(body) != int(length):  # cut short: never run
            self.close_connection = True
            return
        self.serve(body)

    def serve(self, body):
        started = time.monotonic()
        try:
            request = Request(self.command, self.path, self.headers, body)
            result = self.server.engine.run(
                request.statement, request.data, request.settings, request.params, request.database, request.format
            )
            self.answer(200, result.bytes(), answer_headers(request, result, started))
        except Refused as refused:
            self.refuse(refused)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # the engine's, or a request nobody understands: both go to the client
            text = str(error)
            code = int(match[1]) if (match := ERROR_CODE.search(text)) else 1000
            self.refuse(Refused(HTTP_STATUS.get(code, 500), code, text), text if match else None)
        if time.monotonic() - started > SLOW_SECONDS:
            print(f"slow: {time.monotonic() - started:.1f} s, {len(body)} bytes of body", file=sys.stderr, flush=True)

    def refuse(self, refused, text=None):
        text = text or refused.text
        print(f"{refused.status}: {text[:1000]}", file=sys.stderr, flush=True)
        self.answer(refused.status, text.encode("utf-8", "replace") + b"\n", {"X-ClickHouse-Exception-Code": refused.code})

    def answer(self, status, body, headers):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8" if status != 200 else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, str(value))
        if self.close_connection:
            self.send_header("Connection", "close")
        self._headers_buffer.append(b"\r\n")
        self.wfile.write(b"".join(self._headers_buffer) + body)
        self._headers_buffer = []

    def log_message(self, *_):
        """No line per request: errors and slow statements are logged where they happen."""


def answer_headers(request, result, started):
    summary = {
        "read_rows": str(result.rows_read()),
        "read_bytes": str(result.bytes_read()),
        "written_rows": str(result.rows_written()),
        "written_bytes": str(result.bytes_written()),
        "elapsed_ns": str(int((time.monotonic() - started) * 1e9)),
    }
    return {
        "X-ClickHouse-Query-Id": request.query_id,
        "X-ClickHouse-Format": request.format,
        "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
    }


class Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--data", required=True)
    arguments = arguments.parse_args()
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before any thread starts: all inherit it
    engine = Engine(arguments.data)
    server = Server((arguments.host, arguments.port), Handler)
    server.engine = engine
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening on {arguments.host}:{arguments.port}", file=sys.stderr, flush=True)
    signal.sigwait(stops)
    engine.close()  # waits for the statement that runs
    print("stopped", file=sys.stderr, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
