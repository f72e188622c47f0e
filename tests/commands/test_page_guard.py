"""Hostile requests to a running page: nothing of the machine is shown, nothing ends in a traceback."""

import html
import itertools
import json
import socket
import time
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import quote

import pytest

import app

TIMEOUT_S = 60
MB = 1 << 20
JSON = {"Content-Type": "application/json"}
CALL, UPLOAD, FILE = "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/file="
SHOW, CLASSIFY = 0, 1  # numbers of the page's functions
sessions = itertools.count()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


@pytest.fixture
def ask(running_page):
    """Send a request; ``Host`` is the page's unless it is given. No test adds a traceback to the log."""

    def send(path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        headers = {name.replace("_", "-"): value.format(port=running_page.port) for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", running_page.port, timeout=TIMEOUT_S)
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        response = connection.getresponse()
        is_stream = response.headers.get_content_type() == "text/event-stream"
        text = "" if is_stream else response.read().decode(errors="replace")
        connection.close()
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, text)

    yield send
    assert send("/config").status == 200
    assert "Traceback" not in running_page.log.read_text()


@pytest.fixture
def upload(ask):
    """Upload bytes under a file name; returns the answer."""

    def send(content: bytes, name: str | bytes = "video.mp4", field: str = "files") -> Answer:
        name = name if isinstance(name, bytes) else name.encode()
        head = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n' % (field.encode(), name)
        return ask(UPLOAD, head + content + b"\r\n--b--\r\n", Content_Type="multipart/form-data; boundary=b")

    return send


@pytest.fixture
def call(ask, running_page):
    """Call a function of the page as its script does; returns what comes back at the end."""

    def send(data: list, number: int = CLASSIFY) -> dict:
        session = f"session{next(sessions)}"
        body = json.dumps({"data": data, "fn_index": number, "session_hash": session})
        answer = ask(CALL, body.encode(), **JSON)
        assert answer.status == 200, answer.text
        connection = HTTPConnection("127.0.0.1", running_page.port, timeout=TIMEOUT_S)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
        messages = (json.loads(line[5:]) for line in connection.getresponse() if line.startswith(b"data:"))
        done = next(message for message in messages if message["msg"] == "process_completed")
        connection.close()
        return done

    return send


@pytest.fixture
def uploaded(upload, debug_data) -> str:
    """Path of an uploaded video."""
    (path,) = json.loads(upload((debug_data / "videos" / "val 00.mp4").read_bytes()).text)
    return path


def argument(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}", "localhost"]
)
def test_the_page_is_served_under_the_names_of_this_machine(ask, host):
    assert ask("/", Host=host).status == 200
    assert (
        ask("/config", Host=host, Origin=f"http://{host}" if "port" in host else "http://localhost:{port}").status
        == 200
    )


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:{port}", "localhost.evil.example:{port}", "127.0.0.1.evil.example:{port}",
        "evil.example.:{port}", "127.0.0.1:1", "localhost:{port}:{port}", "localhost:{port}@evil.example",
        "[::2]:{port}",
        "0.0.0.0:{port}", "192.168.0.1:{port}", "", "127.1:{port}", "localhost evil.example",
        "[::1]evil.example:{port}",
        "evil.example, localhost:{port}", "localhost:99999", "localhost:{port}/", "2130706433:{port}", "lo\xe9:{port}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x"])
def test_other_hosts_are_refused(ask, host, path):
    answer = ask(path, Host=host, Origin="http://evil.example")
    assert answer.status in (400, 403)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "https://evil.example", "null", "", "http://localhost.evil.example:{port}",
        "http://localhost:1", "http://localhost", "https://localhost:{port}", "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}@evil.example", "file://", "chrome-extension://x",
        "http://evil.example#localhost:{port}",
        "http://localhost:{port}/", "http://localhost.:{port}.evil.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/config"), ("POST", CALL), ("POST", UPLOAD), ("OPTIONS", CALL), ("GET", "/gradio_api/heartbeat/x")],
)
def test_other_origins_are_refused(ask, origin, method, path):
    preflight = {"Access_Control_Request_Method": "POST"} if method == "OPTIONS" else {}
    answer = ask(path, b"{}" if method == "POST" else None, method, Origin=origin, **preflight)
    assert answer.status in (400, 403)
    assert "access-control-allow-origin" not in answer.headers


def test_pictures_and_frames_in_other_pages_are_refused_and_links_followed(ask):
    for site in ("cross-site", "same-site"):
        assert ask("/config", Sec_Fetch_Site=site, Sec_Fetch_Dest="image").status == 403
        assert ask("/", Sec_Fetch_Site=site, Sec_Fetch_Dest="iframe").status == 403
        assert ask("/", Sec_Fetch_Site=site, Sec_Fetch_Dest="document", Sec_Fetch_Mode="navigate").status == 200
    assert ask("/config", Sec_Fetch_Site="same-origin").status == 200


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n", b"403"),
        (b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nHost: evil.example\r\n", b"400"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n", b"403"),
        (b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nOrigin: http://localhost:%d\r\nOrigin: http://evil.example\r\n",
         b"403"),
        (b"GET /gradio_api/x HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"403"),
        (b"\xff\xfe\x00 nonsense\r\n", b"400"),
    ],
)  # fmt: skip
def test_requests_that_no_client_library_sends(running_page, ask, request_head, status):
    port = running_page.port
    head = request_head.replace(b"%d", str(port).encode())
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(head + b"\r\n")
        assert status in connection.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "//etc/passwd", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd",
        "{uploads}/../../../../etc/passwd",
        "{uploads}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/proc/self/environ", "{weights}", "{uploads}", "", "/",
        "%00", "{uploads}/%00",
        "http://127.0.0.1:{port}/config", "http://127.0.0.1:9/x", "file:///etc/passwd", "%ff%fe",
        "{uploads}/" + "a" * 300, "app.py", "/dev/zero",
    ],
)  # fmt: skip
def test_files_other_than_uploads_are_not_shown(ask, running_page, page_weights, path):
    path = path.format(uploads=running_page.uploads, weights=quote(str(page_weights)), port=running_page.port)
    for route in (FILE, "/gradio_api/file/", "/file=", "/static/", "/assets/", "/svelte/", "/gradio_api/proxy="):
        answer = ask(route + path)
        assert answer.status in (400, 403, 404, 405), route
        assert "root:" not in answer.text
        assert "PATH=" not in answer.text


def test_uploads_are_shown(ask, uploaded):
    assert ask(FILE + uploaded).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run/predict", "/gradio_api/api/classify", "/gradio_api/call/classify",
        "/gradio_api/component_server",
        "/gradio_api/process_recording", "/gradio_api/vibe-edit", "/gradio_api/stream/x", "/login",
        "/gradio_api/nothing",
        "/gradio_api/queue/join/../join", "/gradio_api//queue/join",
    ],
)  # fmt: skip
def test_what_the_page_does_not_need_is_closed(ask, path):
    body = json.dumps({"data": [argument("/etc/passwd"), "a"], "fn_index": 1, "session_hash": "x"}).encode()
    assert ask(path, body, **JSON).status in (404, 405)


HOSTILE_FILES = [
    argument("/etc/passwd"), argument("/etc"), argument(""), argument("\0"), argument("http://127.0.0.1:9/x"),
    argument("../x"),
    {"path": 3}, {"path": None}, {}, [], "/etc/passwd", 7, True, [argument("/etc/passwd")],
    {"url": "http://127.0.0.1:9/x"},
    argument("/etc/passwd") | {"is_stream": True}, argument("a" * 10_000),
]  # fmt: skip
HOSTILE_BODIES = [
    b"", b"null", b"[]", b"{}", b"3", b'"x"', b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"data":' * 50_000,
    b'{"data": [null, "\\ud800"], "fn_index": 1, "session_hash": "x"}', b"9" * 10_000, "{}".encode("utf-16"),
    *(
        json.dumps({"data": [None, "a"], "fn_index": CLASSIFY, "session_hash": "x"} | change).encode()
        for change in (
            {"fn_index": 99}, {"fn_index": -1}, {"fn_index": "1"}, {"fn_index": None}, {"fn_index": [1]},
            {"fn_index": True},
            {"fn_index": 1.0}, {"fn_index": 10**30}, {"session_hash": None}, {"session_hash": ""}, {"session_hash": 3},
            {"session_hash": "x" * 1000}, {"data": None}, {"data": "ab"}, {"data": {}}, {"data": []}, {"data": [None]},
            {"data": [None, "a", "b"]}, {"data": [None, None]}, {"data": [None, 3]}, {"data": [None, ["a"]]},
            {"data": [None, {}]},
            *({"data": [value, "a"]} for value in HOSTILE_FILES),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE_BODIES, ids=range(len(HOSTILE_BODIES)))
def test_calls_with_wrong_arguments_are_refused(ask, body):
    answer = ask(CALL, body, **JSON)
    assert answer.status == 400
    assert len(answer.text) < 1000


@pytest.mark.parametrize("path", ["/gradio_api/reset", "/gradio_api/cancel"])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"event_id": 3}', b'{"event_id": "x", "session_hash": "x", "fn_index": -1}']
)
def test_ends_of_calls_that_are_none_do_no_harm(ask, path, body):
    assert ask(path, body, **JSON).status in (200, 400, 422)


def test_what_else_a_call_brings_is_left_out(ask, call, uploaded):
    assert call([argument(uploaded) | {"url": "http://127.0.0.1:9/x", "is_stream": True, "size": -1}, "a, b"])[
        "success"
    ]
    extra = {"batched": True, "event_data": "x", "trigger_id": -5, "event_id": 3, "simple_format": 1, "oauth_token": 4}
    body = {"data": [None, "a"], "fn_index": CLASSIFY, "session_hash": "extra"} | extra
    assert ask(CALL, json.dumps(body).encode(), **JSON).status == 200


def test_a_request_larger_than_the_class_names_may_be_is_refused(ask):
    body = json.dumps({"data": [None, "x" * 5 * MB], "fn_index": CLASSIFY, "session_hash": "x"})
    assert ask(CALL, body.encode(), **JSON).status == 413


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 200_000, "field larger than field limit"),
        ("x" * 600, "class name 1 has 600 characters; the page takes at most 500"),
        ("\n".join(map(str, range(1001))), "1001 class names; the page takes at most 1000"),
        (",".join(map(str, range(1001))), "1001 class names"),
        ("a\n" + "very " * 90 + "long", "class name too long"),
        ('"a', "expected names with commas between"),
        ("a\1b, c", "labels, name 1: expected a class name in one line of text"),
        ("\u202eevil, 😀, <script>alert(1)</script>", None),
    ],
)
def test_class_names_beyond_measure_are_a_message(call, uploaded, text, expected):
    done = call([argument(uploaded), text])
    assert done["success"], done
    message, scores, *_ = done["output"]["data"]
    if expected:
        assert expected in message
        assert scores is None or not scores.get("confidences")
    else:
        assert not message
        assert scores["confidences"]


@pytest.mark.parametrize(
    "name", ["notes.txt", "notes.mp4", "notes.nfo", "song.srt", "page.html", "list.m3u8", "x.ffconcat", "x.sdp"]
)
def test_a_text_file_is_no_video(upload, call, name):
    (path,) = json.loads(upload(b"A text.\nWith lines,\n" * 50, name).text)
    done = call([argument(path), "a, b"])
    assert done["success"]
    assert f"{name} cannot be read: " in done["output"]["data"][0]
    assert str(path) not in done["output"]["data"][0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (name, content)
        for name in ("x.mp4", "x.m3u8", "x.ffconcat")
        for content in (
            "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n{private}\n#EXT-X-ENDLIST\n",
            "ffconcat version 1.0\nfile '{private}'\n",
        )
    ],
)
def test_a_playlist_shows_no_other_file(upload, call, write_video, tmp_path, name, content):
    private = write_video(tmp_path / "private.ts", codec="mpeg2video")
    (path,) = json.loads(upload(content.format(private=private).encode(), name).text)
    message, scores, _, frames = call([argument(path), "a, b"])["output"]["data"]
    assert f"{name} cannot be read: " in message
    assert "private" not in message
    assert not scores or not scores.get("confidences")
    assert not frames


def test_an_upload_above_the_limit_is_refused_and_leaves_nothing(upload, ask, running_page):
    assert upload(b"\0" * (MB // 2)).status == 200
    before = running_page.upload_files()
    assert upload(b"\0" * (MB + 1)).status == 413
    answer = upload(b"\0" * (3 * MB))
    assert answer.status == 413
    assert "1 MB (--max_upload_mb)" in answer.text

    def chunks():  # without a Content-Length
        yield b'--b\r\nContent-Disposition: form-data; name="x"; filename="a.mp4"\r\n\r\n'
        yield from (b"\0" * MB for _ in range(3))

    try:
        status = ask(UPLOAD, chunks(), Content_Type="multipart/form-data; boundary=b").status
    except ConnectionError:  # refused while this side was still sending
        status = 413
    assert status == 413
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="%d.mp4"\r\n\r\n%s\r\n' % (n, b"\0" * (MB // 2))
        for n in range(3)
    )
    assert ask(UPLOAD, parts + b"--b--\r\n", Content_Type="multipart/form-data; boundary=b").status == 413
    assert running_page.upload_files() == before


def test_an_upload_that_breaks_off_leaves_nothing(running_page, ask):
    before = running_page.upload_files()
    head = b"POST %s HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 500000\r\n" % (
        UPLOAD.encode(),
        running_page.port,
    )
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + b"\0" * 200_000
    with socket.create_connection(("127.0.0.1", running_page.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + part)
        end = time.monotonic() + TIMEOUT_S
        while running_page.upload_files() == before and time.monotonic() < end:
            time.sleep(0.05)
    while running_page.upload_files() != before and time.monotonic() < end:
        time.sleep(0.05)
    assert running_page.upload_files() == before


@pytest.mark.parametrize(
    "name",
    [
        "../../../../evil.mp4",
        "/etc/passwd",
        "a" * 3000 + ".mp4",
        b"\xff\xfe.mp4",
        "..",
        ".",
        "",
        "a\0b.mp4",
        "con:*?.mp4",
        "é😀.mp4",
    ],
)
def test_names_of_uploads_lead_nowhere_else(upload, running_page, name):
    answer = upload(b"x", name)
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert all(path.startswith(f"{running_page.uploads}/") for path in json.loads(answer.text))


@pytest.mark.parametrize(
    "name",
    ["clip[1].mp4", "100%25.mp4", "a#b?.mp4", "-rf.mp4", "12:30 clip.mp4", "pipe:0", "concat:a|b.mp4", "none",
     "a=b.mp4", "{x}.mp4", "'\\\"<b>.mp4", "é😀.mp4", "a%2fb.mp4"],
)  # fmt: skip
def test_a_video_of_any_name_is_classified_and_shown(upload, call, ask, debug_data, name):
    (path,) = json.loads(upload((debug_data / "videos" / "val 01.mp4").read_bytes(), name).text)
    message, scores, *_ = call([argument(path), "a, b"])["output"]["data"]
    assert not message
    assert len(scores["confidences"]) == 2
    player = call([argument(path)], SHOW)["output"]["data"][0]
    url = html.unescape(player.split('src="')[1].split('"')[0])
    assert ask(url).status == 200


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=c",
     "multipart/form-data; boundary=b; charset=nonsense", "multipart/form-data; boundary=" + "b" * 3000],
)  # fmt: skip
def test_uploads_that_are_no_forms_are_refused(ask, content_type):
    body = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n'
    assert 400 <= ask(UPLOAD, body, Content_Type=content_type).status <= 500


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--host", "no.such.host.invalid"], "no such host"),
        (["--host", "a" * 300], "no such host"),
        (["--host", "a..b"], "no such host"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--port", "{port}"], "address already in use"),
    ],
)
def test_an_address_that_cannot_be_is_one_line_before_the_model_is_loaded(running_page, arguments, expected):
    with pytest.raises((ValueError, OSError), match=expected) as error:
        app.main(["--weights", "missing.pt", *(value.format(port=running_page.port) for value in arguments)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments", [["--port", "0"], ["--port", "70000"], ["--port", "-1"], ["--port", "x"], ["--max_upload_mb", "0"]]
)
def test_numbers_that_make_no_sense_are_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_names_follow_the_host():
    page_guard = pytest.importorskip("page_guard", reason="gradio is not installed (requirements-app.txt)")
    everywhere = page_guard.Names.of("0.0.0.0", 80)
    for host in ("10.0.0.7", "10.0.0.7:80", "[fe80::1]:80", "localhost", socket.gethostname()):
        assert everywhere.include(host, 80)
    for host in ("evil.example", "10.0.0.7.evil.example", "10.0.0.7:81"):
        assert not everywhere.include(host, 80)
    one = page_guard.Names.of("203.0.113.1", 7860)
    assert one.include("203.0.113.1:7860", 80)
    assert not any(one.include(host, 80) for host in ("localhost:7860", "203.0.113.2:7860", "203.0.113.1"))
    assert page_guard.Names.of("::1", 7860).include("[::1]:7860", 80)


def test_a_mistake_of_ours_is_a_message_too(monkeypatch, caplog):
    class Broken:
        def predict(self, paths, labels):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    view = app.classify(Broken(), "video.mp4", "a, b")
    assert "The server failed (RuntimeError: DefaultCPUAllocator" in view.message
    assert "Traceback" not in caplog.text
