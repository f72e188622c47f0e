"""The web page: in a real browser where there is one, and its parts without."""

import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest

import app
from commands.classifier import VideoClassifier
from reports.prediction_plot import clock

ANSWER_MS = 60_000  # generous: on a busy machine
NAMES = ["a cat jumping", "a cat sleeping", "a dog, wet", "$5 _<b>bold</b> {{value}}"]
CHROMIUM_ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic", "--disable-component-update",
    "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def classifier(page_weights) -> VideoClassifier:
    return VideoClassifier.load(page_weights, precision="fp32")


@pytest.fixture(scope="module")
def videos(write_video, tmp_path_factory) -> Path:
    """A portrait video with sound, an AVI that browsers do not play, and a text that is called a video."""
    folder = tmp_path_factory.mktemp("dropped")
    silent = write_video(folder / "silent.mp4", width=72, height=128)
    _add_sound(silent, folder / "tall & loud.mp4")
    write_video(folder / "old.avi", codec="mpeg4")
    (folder / "text.mp4").write_text("not a video\n")
    return folder


def _add_sound(silent: Path, path: Path) -> None:
    with av.open(str(silent)) as source, av.open(str(path), "w") as container:
        shape = source.streams.video[0]
        picture = container.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = shape.width, shape.height, shape.pix_fmt
        sound = container.add_stream("aac", rate=16000)
        for frame in source.decode(video=0):
            frame.pict_type = 0  # the encoder's choice
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))


@pytest.fixture(scope="module")
def browser():
    """Chromium that finds no host but this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, running_page):
    """The page, opened; whatever a test does on it, it asks no other host."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(ANSWER_MS)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(running_page.url)
    yield page
    page.close()
    assert [url for url in requests if not url.startswith((running_page.url, "data:", "blob:"))] == []


def ask(page, video: Path, text: str) -> None:
    """Drop a video, type class names, click."""
    page.locator("#video input[type=file]").set_input_files(video)
    page.locator("#video a").wait_for()  # the link to the uploaded file
    page.locator("#names textarea").fill(text)
    page.locator("#classify").click()


def test_the_browser_shows_what_the_classifier_says(page, videos, classifier):
    video = videos / "tall & loud.mp4"
    ask(page, video, "\n".join(NAMES))
    captions = page.locator("#frames figcaption")
    captions.first.wait_for()
    (expected,) = classifier.predict(video, NAMES)
    assert page.locator("#scores h2").inner_text() == next(iter(expected.scores))
    bars = page.locator("#scores").inner_text()
    assert all(f"{name}\n{probability * 100:.0f}%" in bars for name, probability in expected.scores.items())
    assert captions.all_inner_texts() == [clock(seconds) for seconds in expected.seconds]
    loaded = "images => images.every(image => image.complete && image.naturalWidth > 0)"
    assert page.locator("#frames img, #curves img").evaluate_all(loaded)
    assert page.locator("#message [role=alert]").count() == 0
    page.wait_for_function("document.querySelector('#player video').videoHeight === 128")


def test_the_class_names_of_training_are_typed_in(page, classifier):
    assert page.locator("#names textarea").input_value().splitlines() == classifier.class_names


def test_a_wrong_file_is_a_message_and_the_page_goes_on(page, videos):
    message = page.locator("#message [role=alert]")
    ask(page, videos / "text.mp4", "a, b")
    message.wait_for()
    assert message.inner_text().startswith("text.mp4 cannot be read: ")
    page.locator("#names textarea").fill("a, A")
    page.locator("#classify").click()
    page.locator("#message").get_by_text("is there twice").wait_for()
    page.locator("#video").get_by_label("Clear").click()
    message.wait_for(state="detached")
    ask(page, videos / "old.avi", "a, b")
    page.locator("#frames figcaption").first.wait_for()
    assert page.locator("#scores h2").inner_text() in ("a", "b")
    assert message.count() == page.locator("#player video").count() == 0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, b ,c", ["a", "b", "c"]),
        ('a, "b, wet"', ["a", "b, wet"]),
        ("a\n\nb, wet\r\nc\n", ["a", "b, wet", "c"]),
        ("\n a \n", ["a"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_names_are_split_by_lines_or_else_by_commas(text, names):
    assert [name.strip() for name in app.typed_names(text)] == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no class names"),
        ("a, , b", "labels, name 2: an empty class name"),
        ("a\nb\na", "is there twice, first at labels, name 1"),
        ("a, " + "very " * 80 + "long", "class name too long (label 1"),
    ],
)
def test_wrong_class_names_are_a_message(classifier, videos, text, expected):
    view = app.classify(classifier, str(videos / "old.avi"), text)
    assert expected in view.message
    assert view == app.View(view.message)


def test_a_missing_video_is_a_message(classifier):
    assert "Drop a video first" in app.classify(classifier, None, "a, b").message


def test_names_of_files_on_the_server_are_class_names(classifier, videos, tmp_path):
    secret = tmp_path / "labels.txt"
    secret.write_text("a secret")
    assert list(app.classify(classifier, str(videos / "old.avi"), str(secret)).scores) == [str(secret)]


def test_messages_and_paths_are_text_not_markup():
    assert "<b>" not in app.message_html("<b>")
    assert app.player_html('/a "b"/c#d.mp4').startswith('<video src="/gradio_api/file=/a%20%22b%22/c%23d.mp4"')


def test_curves_are_named_as_typed(classifier, videos):
    (prediction,) = classifier.predict(videos / "old.avi", NAMES)
    figure = app.plot_curves(prediction)
    figure.canvas.draw()
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())  # a $ is a dollar
    legend = [entry.get_text().strip() for entry in figure.legends[0].get_texts()]
    assert legend == list(prediction.scores)
    best = figure.axes[0].lines[-1].get_ydata()
    np.testing.assert_allclose(best, 100 * prediction.frame_scores[:, NAMES.index(legend[0])])


def test_without_gradio_the_error_names_package_and_file(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"gradio.*requirements-app\.txt"):
        app.main(["--weights", "missing.pt"])
