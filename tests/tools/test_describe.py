"""tools.describe: a model behind an address writes a file class by class; nothing that it says is taken unchecked."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from modules.classes.descriptor_files import read_descriptors, sentences_of
from tools import chat, describe
from utils.cli import run_main

NAMES = ["a dog running", "juggling"]
KEY = "sk-never-shown"


def entry(name: str, num: int = 4) -> dict:
    return {
        "static": [f"thing {place} of {name}" for place in range(num)],
        "steps": [f"step {place} of {name}" for place in range(num)],
        "sentence": f"Somebody films {name} from afar.",
    }


def chosen(question: str) -> str:
    """The class that a prompt asks for."""
    return next(line for line in question.splitlines() if line.startswith("The action: ")).removeprefix("The action: ")


def good(question: str) -> str:
    return json.dumps(entry(chosen(question)))


@pytest.fixture
def server(monkeypatch) -> Iterator[SimpleNamespace]:
    """A server on this machine; ``answer`` says what its model does: a text, or an HTTP status, or bytes."""
    state = SimpleNamespace(answer=good, models=["tiny"], questions=[], headers=[], sleep_s=0.0)
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def send(self, content: object) -> None:
            status = content if isinstance(content, int) else 200
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.send({"data": [{"id": name} for name in state.models]} if self.path == "/v1/models" else 404)

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.questions.append(content["messages"][-1]["content"])
            state.headers.append({**self.headers, "path": self.path, "model": content["model"]})
            ended.wait(state.sleep_s)
            found = state.answer(state.questions[-1])
            self.send({"choices": [{"message": {"content": found}}]} if isinstance(found, str | None) else found)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(chat, "WAIT_S", 0.0)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    state.address = f"http://127.0.0.1:{listening.server_port}/v1"
    yield state
    ended.set()
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "d.yaml"


@pytest.fixture
def run(server, out) -> Callable[..., Path]:
    """The command on ``NAMES``, or other labels, and the server."""

    def run(*more: str, labels: str = ",".join(NAMES)) -> Path:
        return describe.main(["--labels", labels, "--out", str(out), "--model", server.address, *more])

    return run


def test_a_file_is_what_the_model_said_and_one_that_training_reads(run, server, out):
    assert run() == out
    assert read_descriptors(out, NAMES, 4) == [[entry(name)[part] for name in NAMES] for part in ("static", "steps")]
    assert sentences_of(out, NAMES) == [entry(name)["sentence"] for name in NAMES]
    assert {(each["path"], each["model"]) for each in server.headers} == {("/v1/chat/completions", "tiny")}


def test_classes_that_the_file_has_are_kept_and_not_asked_for(run, server, out):
    run(labels=f"something else,{NAMES[0]}")
    kept = entry(NAMES[0]) | {"sentence": 'By hand: "ok", \\ ü.'}
    out.write_text(describe.as_yaml({"something else": entry("something else"), NAMES[0]: kept}))
    server.questions.clear()
    run()
    assert [chosen(question) for question in server.questions] == [NAMES[1]]
    assert sentences_of(out, ["something else", *NAMES])[1] == kept["sentence"]


def test_what_was_written_stays_when_the_server_fails_and_a_second_run_goes_on(run, server, out, capsys):
    server.answer = lambda question: 500 if chosen(question) == NAMES[1] else good(question)
    with pytest.raises(OSError, match=r"^http://\S+/v1/chat/completions: HTTP 500 .*\(tried 4 times\)$"):
        run()
    assert len(server.questions) == 1 + chat.TRIES
    assert read_descriptors(out, NAMES[:1], 4)
    server.answer = good
    server.questions.clear()
    run()
    assert [chosen(question) for question in server.questions] == [NAMES[1]]


def test_a_server_that_is_busy_for_a_moment_is_asked_again(run, server, out):
    statuses = iter([429, 503, 500])
    server.answer = lambda question: next(statuses, None) or good(question)
    run()
    assert read_descriptors(out, NAMES, 4)


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404])
def test_a_refusal_is_one_line_at_once_and_a_redirect_is_not_followed(run, server, status):
    server.answer = lambda question: status
    with pytest.raises(OSError, match=rf"chat/completions: HTTP {status}[^\n]*$"):
        run()
    assert len(server.questions) == 1


UNUSABLE = {
    "no JSON": ("Sure! A dog runs.", "expected one JSON object"),
    "text beside the JSON": ('Here it is: {"static": []}', "expected one JSON object"),
    "nothing": (None, "expected one JSON object"),
    "a list": ("[]", "expected static, steps, sentence"),
    "a key twice": ('{"static": [], "static": [], "steps": [], "sentence": "x"}', "given twice"),
    "nested beyond reason": ("[" * 100_000, "expected one JSON object"),
    "another key": (entry("x") | {"more": 1}, "found 'more'"),
    "three things": (entry("x") | {"static": ["a", "b", "c"]}, "static: expected a list of 4 texts"),
    "five steps": (entry("x", 5) | {"static": entry("x")["static"]}, "steps: expected a list of 4 texts"),
    "no sentence": ({part: entry("x")[part] for part in ("static", "steps")}, "sentence: expected a line of text"),
    "an empty text": (entry("x") | {"steps": ["a", " ", "c", "d"]}, "steps, number 2: expected a line of text"),
    "a number": (entry("x") | {"steps": ["a", 2, "c", "d"]}, "steps, number 2: expected a line of text"),
    "a line break": (entry("x") | {"sentence": "a\nb"}, "sentence: expected a line of text"),
    "half of a surrogate pair": (entry("x") | {"sentence": "a \ud800"}, "sentence: expected a line of text"),
    "over 77 tokens": (entry("x") | {"static": ["a", "b", "c", "d " * 80]}, "at most 77"),
    "a sentence that no template can hold": (entry("x") | {"sentence": "a " * 72}, "at most 77"),
    "a text twice": (entry("x") | {"steps": ["a", "b", "A", "d"]}, "'A' is there twice"),
    "just the name": (entry("x") | {"sentence": "Juggling."}, "just the name"),
    "what YAML cannot hold": (entry("x") | {"sentence": "a \uffff b"}, ""),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_class_whose_answers_cannot_be_used_is_left_out_and_named_at_the_end(run, server, out, kind):
    bad, reason = UNUSABLE[kind]
    bad = bad if isinstance(bad, str | None) else json.dumps(bad)
    server.answer = lambda question: bad if chosen(question) == "juggling" else good(question)
    with pytest.raises(SystemExit) as end:
        run(labels="juggling,a dog running")
    assert str(end.value).startswith("error: 1 classes are left out")
    assert f"\n  'juggling': the answer: {reason}" in str(end.value) or reason in str(end.value)
    assert len(str(end.value).splitlines()) == 2
    assert [chosen(question) for question in server.questions] == ["juggling"] * describe.TRIES + ["a dog running"]
    assert list(describe.read_entries(out)) == ["a dog running"]


def test_the_exit_status_is_1_where_a_class_is_left_out(run, server):
    server.answer = lambda question: "no"
    with pytest.raises(SystemExit) as end:
        run_main(run)
    assert end.value.code not in (None, 0, 2)  # a text: Python prints it and ends with 1


def test_another_try_is_told_what_was_wrong(run, server, out):
    answers = iter(['{"static": 5}'])
    server.answer = lambda question: next(answers, None) or good(question)
    run(labels="juggling")
    assert "could not be used: the answer: static: expected a list of 4 texts" in server.questions[1]
    assert read_descriptors(out, ["juggling"], 4)


@pytest.mark.parametrize("around", ["```json\n{}\n```", "```\n{}\n```\n", "\n {} \n", "<think>hm {{\n</think>\n\n{}"])
def test_a_fence_and_thoughts_before_an_answer_are_no_part_of_it(run, server, out, around):
    server.answer = lambda question: around.replace("{}", good(question))
    run()
    assert read_descriptors(out, NAMES, 4)


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": 5}}]}', b"\xff"]
)
def test_a_server_that_is_of_another_kind_is_an_error(run, server, body):
    server.answer = lambda question: body
    with pytest.raises(ValueError, match=r"^http://\S+/chat/completions: expected (JSON|choices)[^\n]*$"):
        run()


def test_another_number_of_texts_can_be_asked_for(run, server, out):
    server.answer = lambda question: json.dumps(entry(chosen(question), 6))
    run("--num", "6")
    assert "6 steps of the action" in server.questions[0]
    assert len(read_descriptors(out, NAMES, 6)[0][0]) == 6


def test_a_file_with_another_number_of_texts_is_refused_before_the_server_is_asked(run, server, out):
    out.write_text(describe.as_yaml({NAMES[0]: entry(NAMES[0], 3)}))
    with pytest.raises(ValueError, match=r"d\.yaml: class 'a dog running': static: expected a list of 4 texts"):
        run()
    assert server.questions == []


def test_a_server_of_several_models_asks_which(run, server, out):
    server.models = ["small", "large"]
    with pytest.raises(ValueError, match=r"2 models, say which as http://\S+#NAME: \['small', 'large'\]"):
        run()
    describe.main(["--labels", "juggling", "--out", str(out), "--model", f"{server.address}#large"])
    assert server.headers[0]["model"] == "large"


def test_the_key_goes_to_the_server_and_into_no_message(run, server, monkeypatch, caplog, capsys):
    monkeypatch.setenv("OUR_KEY", KEY)
    run("--api_key_env", "OUR_KEY")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    server.answer = lambda question: 401
    with pytest.raises(OSError, match="HTTP 401") as error:
        run("--api_key_env", "OUR_KEY", labels="cycling")
    assert KEY not in f"{error.value}{caplog.text}{''.join(capsys.readouterr())}"


@pytest.mark.parametrize("key", ["", "  ", f"{KEY}\r\nHost: x", f"{KEY}ü"])
def test_a_key_that_is_none_is_an_error_that_does_not_show_it(run, monkeypatch, key):
    monkeypatch.setenv("OUR_KEY", key)
    with pytest.raises(ValueError, match=r"environment variable 'OUR_KEY', found (nothing|one with)") as error:
        run("--api_key_env", "OUR_KEY")
    assert KEY not in str(error.value)


def test_a_silent_server_ends_in_one_line(run, server, monkeypatch):
    monkeypatch.setattr(chat, "TRIES", 2)
    server.sleep_s = 60.0
    with pytest.raises(OSError, match=r"^http://\S+: timed out \(tried 2 times\)$"):
        run("--timeout_s", "1")


def test_nobody_at_the_address_ends_in_one_line(out, monkeypatch):
    monkeypatch.setattr(chat, "WAIT_S", 0.0)
    with pytest.raises(OSError, match=r"^http://127\.0\.0\.1:9/v1/models: [^\n]*refused[^\n]* \(tried 4 times\)$"):
        describe.main(["--labels", "a", "--out", str(out), "--model", "http://127.0.0.1:9/v1"])


@pytest.mark.parametrize(
    "model", ["http://", "http://:80/v1", "http://host:port/v1", "ftp://host/v1", "file:///x", "http://a b/v1"]
)
def test_an_address_that_is_none_is_named(out, model):
    with pytest.raises(ValueError, match="--model: expected an address"):
        describe.main(["--labels", "a", "--out", str(out), "--model", model])


def test_without_a_model_the_prompt_for_what_is_missing_is_printed_and_nothing_written(out, capsys):
    describe.main(["--labels", ",".join(NAMES), "--out", str(out)])
    printed = capsys.readouterr().out
    assert all(f"- {name}\n" in printed for name in NAMES)
    assert not out.exists()
    out.write_text(printed[printed.index("classes:\n") :])  # the form that it asks for is a file's
    assert [len(texts) for part in read_descriptors(out, ["name of the action, as above"]) for texts in part] == [4, 4]
    out.write_text(describe.as_yaml({NAMES[0]: entry(NAMES[0])}))
    describe.main(["--labels", ",".join(NAMES), "--out", str(out)])
    assert f"- {NAMES[0]}\n" not in capsys.readouterr().out


def test_a_model_of_this_machine_without_transformers_is_one_line_that_names_it(out, monkeypatch):
    monkeypatch.setattr(chat, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^--model 'org/name': [^\n]*pip install transformers[^\n]*$"):
        describe.main(["--labels", "a", "--out", str(out), "--model", "org/name"])


def test_a_folder_without_a_model_is_one_line(out, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed; models behind an address need none")
    with pytest.raises(ValueError, match=r"^--model [^\n]*$"):
        describe.main(["--labels", "a", "--out", str(out), "--model", str(tmp_path)])


def test_a_model_of_this_machine_answers_and_what_it_says_is_checked_alike(out, tmp_path):
    """A tiny one with random weights: it talks nonsense."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    letters = {chr(code): code - 32 for code in range(32, 127)} | {"?unknown": 95}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(letters, [], unk_token="?unknown"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "m")
    config = transformers.GPT2Config(vocab_size=96, n_positions=4096, n_embd=16, n_layer=1, n_head=1, eos_token_id=95)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "m")
    with pytest.raises(SystemExit, match=r"'juggling': the answer: expected one JSON object, found ['\"].+"):
        describe.main(["--labels", "juggling", "--out", str(out), "--model", str(tmp_path / "m")])
    assert not out.exists()


def test_a_name_that_is_no_file_of_ours_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        describe.main(["--labels", "a", "--out", str(tmp_path / "d.json")])
    assert "--out: expected a name that ends with .yaml" in capsys.readouterr().err
