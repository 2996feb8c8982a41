import dataclasses
import functools
import hashlib
import http.server
import importlib.util
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import filelock
import pytest

from keras_nonlocal.weights import download

CONTENT = random.Random(0).randbytes(1_000_003)
OTHER = random.Random(1).randbytes(900_001)
HALF = 500_000
QUICK = {"timeout": 0.5, "retries": 2, "backoff": 0.01, "progress": False}
CHILD = """
import sys
from keras_nonlocal.weights import download
url, path = sys.argv[1:]
print(download.fetch(url, path, progress=False))
"""


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclasses.dataclass
class Request:
    path: str
    headers: dict
    sent: int = 0

    @property
    def start(self):
        """Where the asked range starts; `None` if the whole is asked for."""
        text = self.headers.get("Range")
        return text and int(text.removeprefix("bytes=").removesuffix("-"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        self.request_seen = Request(self.path, dict(self.headers))
        answer = self.server.next_answer(self.request_seen)
        try:
            answer(self)
        except ConnectionError:
            pass  # The client went away.

    def start(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def write(self, data):
        self.wfile.write(data)
        self.request_seen.sent += len(data)

    def log_message(self, *args):
        pass


class Site(http.server.ThreadingHTTPServer):
    """Answers each path with the next of its answers, the last repeatedly."""

    daemon_threads = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        self.answers = {}
        self.requests = []
        self.closing = threading.Event()
        self.lock = threading.Lock()

    def add(self, *answers, path="/model.bin"):
        self.answers[path] = list(answers)
        return f"{self.scheme}://127.0.0.1:{self.server_port}{path}"

    def next_answer(self, request):
        with self.lock:
            self.requests.append(request)
            answers = self.answers[request.path]
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


@pytest.fixture(autouse=True)
def _fresh_state():
    """Nothing here has Keras's state, which takes time to clear."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def serve(site):
    thread = threading.Thread(target=site.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.closing.set()
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture
def site():
    yield from serve(Site())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "model.bin"


def file(
    content=CONTENT,
    etag='"1"',
    ranges=True,
    if_range=True,
    stop=None,
    hold=None,
):
    """The file as a good server sends it, or with something wrong.

    Breaks off after `stop` bytes, or waits there for the event `hold`.
    """
    validator = {"ETag": etag} if etag else {}

    def answer(handler):
        start = ranges and handler.request_seen.start
        if if_range and handler.headers.get("If-Range") != etag:
            start = None
        if start and start >= len(content):
            size = f"bytes */{len(content)}"
            handler.start(416, {"Content-Range": size, "Content-Length": "0"})
            return
        body = content[start or 0 :]
        headers = validator | {"Content-Length": str(len(body))}
        if start:
            last, size = len(content) - 1, len(content)
            headers["Content-Range"] = f"bytes {start}-{last}/{size}"
        handler.start(206 if start else 200, headers)
        handler.write(body[:stop])
        if hold:
            hold.wait(30)
            handler.write(body[stop:])

    return answer


def plain(headers, pieces=(), code=200, pause=0.0):
    def answer(handler):
        handler.start(code, headers)
        for piece in pieces:
            handler.write(piece)
            time.sleep(pause)

    return answer


def chunked(content=CONTENT, end=True):
    pieces = [content[i : i + 99_999] for i in range(0, len(content), 99_999)]
    body = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    headers = {"Transfer-Encoding": "chunked", "ETag": '"1"'}
    return plain(headers, body + [b"0\r\n\r\n"] * end)


def status(code, **headers):
    return plain({"Content-Length": "0"} | headers, code=code)


def redirect(target):
    return status(302, Location=target)


def assert_only(path, content):
    """The file is there and, but for the lock, nothing else is."""
    assert path.read_bytes() == content
    names = {"model.bin", "model.bin.lock"}
    assert set(os.listdir(path.parent)) <= names


def assert_fails(url, path, match, *args, **settings):
    with pytest.raises(download.DownloadError, match=match) as caught:
        download.fetch(url, path, *args, **QUICK | settings)
    assert not path.exists()
    assert url in str(caught.value)
    assert str(path) in str(caught.value)


UPPER = f"sha256:{hashlib.sha256(CONTENT).hexdigest().upper()}"
SHA1 = f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"


@pytest.mark.parametrize(
    "expected",
    [None, sha256(CONTENT), sha256(CONTENT)[:15], UPPER, SHA1],
)
def test_fetches_once(site, path, expected):
    url = site.add(file())
    for _ in range(2):
        assert download.fetch(url, path, expected, **QUICK) == str(path)
        assert_only(path, CONTENT)
    assert len(site.requests) == 1


def test_a_path_without_a_folder(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    download.fetch(site.add(file()), "model.bin", **QUICK)
    assert_only(tmp_path / "model.bin", CONTENT)


def test_an_empty_file(site, path):
    download.fetch(site.add(file(b"")), path, sha256(b""), **QUICK)
    assert_only(path, b"")


def test_a_slow_server_is_waited_for(site, path):
    pieces = [bytes([i]) * 10 for i in range(20)]
    headers = {"Content-Length": "200"}
    url = site.add(plain(headers, pieces, pause=0.06))
    download.fetch(url, path, **QUICK | {"retries": 0})
    assert_only(path, b"".join(pieces))


def test_what_is_broken_off_is_continued(site, path):
    url = site.add(file(stop=HALF), file())
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)
    first, second = site.requests
    assert first.start is None
    assert second.start == first.sent == HALF
    assert second.headers["If-Range"] == '"1"'
    assert second.sent == len(CONTENT) - HALF


def test_the_next_call_continues(site, path):
    url = site.add(file(stop=HALF), file(etag='"1"'))
    assert_fails(url, path, "bytes", retries=0)
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)
    assert [request.start for request in site.requests] == [None, HALF]


def test_pieces_that_get_further_are_no_failures(site, path):
    url = site.add(*[file(stop=200_000)] * 5, file())
    download.fetch(url, path, **QUICK | {"retries": 1})
    assert_only(path, CONTENT)
    starts = [request.start or 0 for request in site.requests]
    assert starts == [0, 200_000, 400_000, 600_000, 800_000, 1_000_000]


def test_last_modified_stands_in_for_a_weak_etag(site, path):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    headers = {"ETag": 'W/"1"', "Last-Modified": date}
    length = {"Content-Length": str(len(CONTENT))}
    part = plain(headers | length, [CONTENT[:HALF]])
    url = site.add(part, file(etag=date))
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)
    assert site.requests[1].headers["If-Range"] == date
    assert site.requests[1].sent == len(CONTENT) - HALF


@pytest.mark.parametrize(
    "fault", [{"ranges": False}, {"etag": None}, {"etag": 'W/"1"'}]
)
def test_starts_anew_where_the_server_cannot_continue(site, path, fault):
    url = site.add(file(stop=HALF, **fault), file(**fault))
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)
    assert site.requests[1].sent == len(CONTENT)


@pytest.mark.parametrize("if_range", [True, False])
def test_a_changed_file_is_fetched_anew(site, path, if_range):
    new = file(OTHER, etag='"2"', if_range=if_range)
    url = site.add(file(stop=HALF), new)
    download.fetch(url, path, **QUICK)
    assert_only(path, OTHER)
    assert site.requests[-1].sent == len(OTHER)


def test_another_url_is_fetched_anew(site, path):
    assert_fails(site.add(file(stop=HALF)), path, "bytes", retries=0)
    url = site.add(file(OTHER), path="/other.bin")
    download.fetch(url, path, **QUICK)
    assert_only(path, OTHER)
    assert site.requests[1].start is None


def test_a_part_without_its_notes_is_not_trusted(site, path):
    path.parent.mkdir()
    part = path.with_name("model.bin.part")
    notes = path.with_name("model.bin.part.json")
    for text in (None, "", '{"url": "http'):
        part.write_bytes(OTHER)
        if text is not None:
            notes.write_text(text)
        download.fetch(site.add(file()), path, **QUICK)
        assert_only(path, CONTENT)
        path.unlink()


def test_a_whole_part_is_not_fetched_again(site, path):
    headers = {"Content-Length": str(len(CONTENT) + 1), "ETag": '"1"'}
    url = site.add(plain(headers, [CONTENT]), file())
    download.fetch(url, path, sha256(CONTENT), **QUICK)
    assert_only(path, CONTENT)
    assert [r.sent for r in site.requests] == [len(CONTENT), 0]


def test_a_part_beyond_the_end_is_dropped(site, path):
    short = file(b"short", etag='"2"', if_range=False)
    url = site.add(file(stop=HALF), short)
    download.fetch(url, path, **QUICK)
    assert_only(path, b"short")
    assert [r.start for r in site.requests] == [None, HALF, None]


@pytest.mark.parametrize(
    "span", [None, "bytes 0-2/1000003", "bytes 500000-500002/*", "odd"]
)
def test_other_ranges_than_asked_for_are_not_used(site, path, span):
    headers = {"Content-Length": "3"} | (
        {"Content-Range": span} if span else {}
    )
    url = site.add(file(stop=HALF), plain(headers, [b"abc"], 206), file())
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)
    assert [request.start for request in site.requests] == [None, HALF, None]


def test_shorter_ranges_than_asked_for_are_used(site, path):
    span = f"bytes {HALF}-{HALF + 99}/{len(CONTENT)}"
    headers = {"Content-Length": "100", "Content-Range": span}
    some = plain(headers, [CONTENT[HALF : HALF + 100]], 206)
    download.fetch(site.add(file(stop=HALF), some, file()), path, **QUICK)
    assert_only(path, CONTENT)
    starts = [request.start for request in site.requests]
    assert starts == [None, HALF, HALF + 100]


def test_a_range_not_asked_for_is_refused(site, path):
    headers = {"Content-Range": "bytes 3-5/6", "Content-Length": "3"}
    url = site.add(plain(headers, [b"abc"], code=206))
    assert_fails(url, path, "206")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_trickle_ends_with_the_time(site, path, framing):
    headers = {"Content-Length": "1000"}
    pieces = [b"x"] * 1000
    if framing == "chunked":
        headers = {"Transfer-Encoding": "chunked"}
        pieces = [b"3e8\r\n", *pieces]
    url = site.add(plain(headers, pieces, pause=0.02))
    start = time.monotonic()
    assert_fails(url, path, "longer than `time_limit`, 0.3 s", time_limit=0.3)
    assert time.monotonic() - start < 3


def test_pages_are_refused_at_once(site, path):
    headers = {"Content-Type": "Text/HTML; charset=x", "Content-Length": "9"}
    url = site.add(plain(headers, [b"x"]))
    assert_fails(url, path, "of the type text/html", refused=("text/html",))
    assert len(site.requests) == 1


@pytest.mark.parametrize("begins", [True, False])
def test_a_stalled_server_is_given_up(site, path, begins):
    def silent(handler):
        site.closing.wait(30)

    url = site.add(*[file(stop=HALF, hold=site.closing)] * begins, silent)
    start = time.monotonic()
    assert_fails(url, path, "timed out", timeout=0.2)
    assert time.monotonic() - start < 5
    assert len(site.requests) == 3


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusals_are_not_retried(site, path, code):
    assert_fails(site.add(status(code)), path, f"the answer is {code}")
    assert len(site.requests) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_passing_trouble_is_retried(site, path, code):
    url = site.add(status(code), status(code), file())
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)
    assert len(site.requests) == 3


def test_lasting_trouble_ends(site, path, caplog):
    assert_fails(site.add(status(503)), path, "503 Service Unavailable")
    assert len(site.requests) == 3
    assert caplog.text.count("503 Service Unavailable. Next try in") == 2


def test_a_server_is_given_the_time_it_asks_for(site, path):
    start = time.monotonic()
    wait = {"Retry-After": "1"}
    download.fetch(site.add(status(429, **wait), file()), path, **QUICK)
    assert time.monotonic() - start >= 1


def test_no_server_is_given_all_the_time_it_asks_for(site, path, monkeypatch):
    monkeypatch.setattr(download, "_LONGEST_PAUSE", 0.01)
    wait = {"Retry-After": "99999"}
    download.fetch(site.add(status(429, **wait), file()), path, **QUICK)
    assert_only(path, CONTENT)


@pytest.mark.parametrize(
    "text", ["soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"]
)
def test_odd_retry_after(site, path, text):
    wait = {"Retry-After": text}
    download.fetch(site.add(status(429, **wait), file()), path, **QUICK)
    assert_only(path, CONTENT)


def test_a_wrong_hash(site, path):
    url = site.add(file(OTHER), file())
    expected, found = sha256(CONTENT)[:15], sha256(OTHER)
    assert_fails(url, path, f"{expected}.*{found}", expected)
    assert os.listdir(path.parent) == ["model.bin.lock"]
    download.fetch(url, path, expected, **QUICK)
    assert_only(path, CONTENT)
    assert site.requests[1].start is None


def test_too_small_a_content_length_is_found_by_the_hash(site, path):
    headers = {"Content-Length": str(HALF)}
    url = site.add(plain(headers, [CONTENT]))
    assert_fails(url, path, sha256(CONTENT[:HALF]), sha256(CONTENT))


def test_too_large_a_content_length(site, path):
    headers = {"Content-Length": str(len(CONTENT) + 1)}
    assert_fails(site.add(plain(headers, [CONTENT])), path, "bytes|incomplete")
    assert len(site.requests) == 3


def test_no_content_length(site, path):
    download.fetch(site.add(chunked()), path, **QUICK)
    assert_only(path, CONTENT)


def test_no_content_length_and_broken_off(site, path):
    url = site.add(chunked(CONTENT[:HALF], end=False), file())
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)
    assert 0 < site.requests[1].start <= HALF


def test_bytes_are_kept_as_they_are_sent(site, path):
    """As by curl and wget: it is the file that is compressed."""
    body = b"\x1f\x8b not really"
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(body))}
    download.fetch(site.add(plain(headers, [body])), path, **QUICK)
    assert_only(path, body)
    assert site.requests[0].headers["Accept-Encoding"] == "identity"


def test_files_too_large_are_refused(site, path):
    limit = len(CONTENT)
    for answer in (file(), chunked()):
        url = site.add(answer)
        limits = {"max_bytes": limit - 1}
        assert_fails(url, path, f"`max_bytes`, {limit - 1}", **limits)
        assert os.listdir(path.parent) == ["model.bin.lock"]
        download.fetch(url, path, **QUICK, max_bytes=limit)
        path.unlink()
    assert len(site.requests) == 4


def test_files_said_to_be_too_large_are_not_waited_for(site, path):
    url = site.add(plain({"Content-Length": str(2**32 + 1)}))
    assert_fails(url, path, "`max_bytes`, 4294967296 bytes")
    assert len(site.requests) == 1


def test_a_full_disk(site, path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limits[1]))
    try:
        assert_fails(site.add(file()), path, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(site.requests) == 1


def test_redirects_are_followed(site, path):
    site.add(file(), path="/deep/model.bin")
    url = site.add(redirect("/deep/model.bin"))
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)


def test_continues_behind_a_redirect(site, path):
    site.add(file(stop=HALF), file(), path="/deep/model.bin")
    download.fetch(site.add(redirect("/deep/model.bin")), path, **QUICK)
    assert_only(path, CONTENT)
    assert site.requests[-1].start == HALF


def test_a_redirect_loop_ends(site, path):
    assert_fails(site.add(redirect("/model.bin")), path, "30 redirects")
    assert len(site.requests) == 31


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,a", "http://["]
)
def test_redirects_elsewhere_are_refused(site, path, target):
    assert_fails(site.add(redirect(target)), path, "redirects to|Invalid")
    assert len(site.requests) == 1


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """An https site with a certificate of its own."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
        f"-nodes -days 2 -subj /CN=test -out {certificate} -keyout {key} "
        "-addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    site = Site()
    site.scheme = "https"
    site.certificate = certificate
    site.socket = context.wrap_socket(site.socket, server_side=True)
    yield from serve(site)


def test_https_is_not_left(site, secure, path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secure.certificate)
    url = secure.add(redirect(site.add(file())))
    assert_fails(url, path, "which is not https")
    assert not site.requests
    secure.add(redirect("/b"))
    secure.add(file(), path="/b")
    download.fetch(url, path, **QUICK)
    assert_only(path, CONTENT)


def test_an_unknown_certificate_is_refused(secure, path, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    assert_fails(secure.add(file()), path, "CERTIFICATE_VERIFY_FAILED")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    assert_fails(secure.add(file()), path, "invalid path")


def test_proxies_are_used(site, path, monkeypatch):
    proxy = site.add(file(), path="http://host.invalid/model.bin")
    monkeypatch.setenv("HTTP_PROXY", proxy.partition("http://host")[0])
    monkeypatch.setenv("http_proxy", proxy.partition("http://host")[0])
    download.fetch("http://host.invalid/model.bin", path, **QUICK)
    assert_only(path, CONTENT)


def test_nobody_answers(path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/model.bin"
        assert_fails(url, path, "Connection refused")


@pytest.fixture
def start_process(path, monkeypatch):
    """Starts processes that fetch; ends them with the test."""
    if importlib.util.find_spec("scipy"):  # Which this backend needs.
        # TensorFlow would take seconds to import.
        monkeypatch.setenv("KERAS_BACKEND", "numpy")
    processes = []

    def start(url):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, url, path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_two_processes_fetch_once(site, path, start_process):
    hold = threading.Event()
    url = site.add(file(stop=HALF, hold=hold))
    first = start_process(url)
    wait_for(lambda: site.requests, first)
    second = start_process(url)
    assert any("Waiting for another" in line for line in second.stderr)
    assert not path.exists()
    hold.set()
    for process in (first, second):
        assert process.communicate(timeout=60)[0] == f"{path}\n"
        assert process.returncode == 0
    assert_only(path, CONTENT)
    assert [request.sent for request in site.requests] == [len(CONTENT)]


def test_a_killed_process_is_continued(site, path, start_process):
    part = path.with_name("model.bin.part")
    url = site.add(file(stop=HALF, hold=site.closing), file())
    process = start_process(url)
    wait_for(lambda: part.exists() and part.stat().st_size, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    download.fetch(url, path, sha256(CONTENT), **QUICK, lock_timeout=5)
    assert_only(path, CONTENT)
    start = site.requests[1].start
    assert 0 < start <= HALF
    assert site.requests[1].sent == len(CONTENT) - start


def test_threads_fetch_once(site, path):
    url = site.add(plain({"Content-Length": "9"}, [b"abc"] * 3, pause=0.1))
    fetch = functools.partial(download.fetch, url, path, **QUICK)
    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_only(path, b"abcabcabc")
    assert len(site.requests) == 1


def test_the_wait_for_another_process_has_an_end(site, path):
    path.parent.mkdir()
    with filelock.FileLock(f"{path}.lock"):
        with pytest.raises(download.DownloadError, match=r"holds .*\.lock"):
            download.fetch(site.add(file()), path, **QUICK, lock_timeout=0.1)
    assert not site.requests


def test_a_file_placed_by_hand(site, path):
    path.parent.mkdir()
    path.write_bytes(OTHER)
    url = site.add(file())
    download.fetch(url, path, **QUICK)
    download.fetch(url, path, sha256(OTHER), **QUICK)
    with pytest.raises(download.DownloadError, match="Delete it") as caught:
        download.fetch(url, path, sha256(CONTENT), **QUICK)
    for text in (str(path), url, sha256(CONTENT), sha256(OTHER)):
        assert text in str(caught.value)
    assert path.read_bytes() == OTHER
    assert os.listdir(path.parent) == ["model.bin"]
    assert not site.requests


def test_a_folder_at_the_path(site, tmp_path):
    with pytest.raises(download.DownloadError, match="Could not read"):
        download.fetch(site.add(file()), tmp_path, sha256(CONTENT), **QUICK)


def test_a_folder_that_cannot_be_made(site, path):
    path.parent.write_text("a file")
    assert_fails(site.add(file()), path, "File exists|Not a directory")
    assert not site.requests


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "a/b", ""])
def test_only_http_is_fetched(path, url):
    with pytest.raises(ValueError, match="`url` must begin with http"):
        download.fetch(url, path)


@pytest.mark.parametrize(
    "expected",
    [
        "",
        "sha256:0123456",
        "sha256:" + "0" * 65,
        "sha1:not a hash",
        "md5:01234",
        "0" * 64,
    ],
)
def test_hashes_are_hexadecimal(path, expected):
    with pytest.raises(ValueError, match="`digest` must be None or"):
        download.fetch("http://127.0.0.1/", path, expected)


def test_progress_is_shown_while_there_is_any(site, path, capsys):
    for _ in range(2):
        url = site.add(file(stop=HALF), file())
        download.fetch(url, path, **QUICK | {"progress": True})
        output = capsys.readouterr().out
        assert "1/1" in output
        assert "MiB" in output
        download.fetch(url, path, **QUICK | {"progress": True})
        assert capsys.readouterr().out == ""
        path.unlink()
    download.fetch(site.add(chunked()), path, **QUICK)
    assert capsys.readouterr().out == ""


def test_cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "a"))
    assert download.cache_dir() == str(tmp_path / "a" / "keras_nonlocal")
    assert os.path.isdir(download.cache_dir())
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / ".keras" / "keras_nonlocal"
    assert download.cache_dir() == str(expected)
    assert expected.is_dir()


def test_a_cache_dir_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(download.DownloadError, match=r"file.*KERAS_HOME"):
        download.cache_dir()
