"""Classify videos on a web page of this machine.

python app.py --weights MoTE_B16.pt --labels "a cat jumping, a cat sleeping"

The page shows the most probable classes, the frames that the model saw, and what each frame says. It loads nothing from
elsewhere and works without a network.
"""

import argparse
import html
import io
import logging
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from commands.arguments import add_model_arguments
from commands.classifier import VideoClassifier
from datasets.lists.labels import read_labels, split_names
from engine.protocols.probabilities import Prediction
from reports.prediction_plot import clock, draw_course, shorten
from reports.style import data_uri
from utils.cli import add_common_arguments, run_main
from utils.logger import setup_logging

if TYPE_CHECKING:
    import gradio
    from starlette.applications import Starlette

logger = logging.getLogger(__name__)

NUM_SHOWN = 5  # classes with a bar and a curve
NAME_WIDTH, MESSAGE_WIDTH = 70, 300  # characters of a class name in the legend, and of a message
MAX_NAMES, MAX_NAME_CHARS = 1000, 500
MAX_WAITING = 16  # requests; more are told that the queue is full
UPLOADS_CHECK_S, UPLOADS_AGE_S = 600, 3600  # uploads older than an hour are deleted, and all when the server ends
CSS = """
#player video {max-height: 300px; width: 100%}
#message [role=alert] {padding: 12px; border-left: 4px solid #c2410c}
#frames .strip {display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 8px}
#frames figure {margin: 0; text-align: center}
#frames img {width: 100%}
"""


class View(NamedTuple):
    """What the page shows of one video; by default nothing."""

    message: str = ""  # HTML
    scores: dict[str, float] | None = None  # class name -> probability
    curves: Figure | None = None
    frames: str = ""  # HTML


def main(argv: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        ValueError, OSError: gradio is not installed, the model cannot be loaded, the port is taken.
    """
    args = parse_args(argv)
    setup_logging()
    import_gradio()
    check_address(args.host, args.port)
    class_names = read_labels(args.labels) if args.labels else []
    classifier = VideoClassifier.load(args.weights, args.config, args.arch, args.precision, overrides=args.overrides)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends like Ctrl-C: uploads are deleted
    # A folder of our own: gradio shows whatever lies in the folder of uploads, those of other programs as well.
    place = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mote-uploads-", dir=place.resolve()) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build_page(classifier, class_names or classifier.class_names, args.weights or "CLIP")
        serve(page, args.host, args.port, args.max_upload_mb << 20, uploads)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--labels", help="class names to begin with: 'a, b' or a file (default: those of training)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="(default: 7860)")
    parser.add_argument("--max_upload_mb", type=int, default=2048, help="largest video (default: 2048)")
    add_common_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    args.host = args.host.strip("[]")  # an IPv6 address may be written as in a URL
    if not 0 < args.port < 1 << 16:
        parser.error(f"--port: expected a number from 1 to 65535, found {args.port}")
    if args.max_upload_mb < 1:
        parser.error(f"--max_upload_mb: expected a positive number, found {args.max_upload_mb}")
    return args


def check_address(host: str, port: int) -> None:
    """See that the page can listen there, before a model is loaded.

    Raises:
        ValueError, OSError: no such host, not an address of this machine, or the port is taken.
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host!r}: no such host ({error})") from None
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            reason = error.strerror.lower()
            raise OSError(f"cannot listen on {host} port {port} ({reason}); see --host and --port") from None


def import_gradio() -> ModuleType:
    """The gradio package, which only this page needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}; the page needs gradio: pip install -r requirements-app.txt") from None
    return gradio


def build_page(classifier: VideoClassifier, class_names: list[str], title: str) -> "gradio.Blocks":
    """The page, with ``class_names`` typed in; ``title`` says which model it is."""
    gr = import_gradio()
    delete_cache = (UPLOADS_CHECK_S, UPLOADS_AGE_S)
    with gr.Blocks(title=f"MoTE: {title}", analytics_enabled=False, delete_cache=delete_cache) as page:
        gr.Markdown(f"# What does the video show?\nDrop a video, type class names, any that you like. Model: `{title}`")
        with gr.Row():
            with gr.Column():
                video = gr.File(label="Video", height=120, elem_id="video")
                player = gr.HTML(elem_id="player", padding=False)
                names = gr.Textbox(
                    "\n".join(class_names), label="Class names", info="one per line, or one line with commas",
                    lines=4, max_lines=10, elem_id="names",
                )  # fmt: skip
                button = gr.Button("Classify", variant="primary", elem_id="classify")
                message = gr.HTML(elem_id="message", padding=False)
            with gr.Column():
                scores = gr.Label(label="Probability", num_top_classes=NUM_SHOWN, elem_id="scores")
                curves = gr.Plot(show_label=False, elem_id="curves")
        frames = gr.HTML(elem_id="frames", padding=False)
        shown = [message, scores, curves, frames]
        video.change(lambda path: (player_html(path), *View()), video, [player, *shown], show_progress="hidden")
        gr.on([button.click, names.submit], lambda *asked: classify(classifier, *asked), [video, names], shown)
    return page


def serve(page: "gradio.Blocks", host: str, port: int, max_upload_bytes: int, uploads: str) -> None:
    """Listen until an interrupt."""
    gr = import_gradio()
    from commands.page_guard import Names, PageGuard  # needs starlette, which comes with gradio

    names = Names.of(host, port)
    calls = {
        number: ["file" if isinstance(block, gr.File) else "text" for block in function.inputs]
        for number, function in page.fns.items()
    }

    @asynccontextmanager
    async def guarded(server: "Starlette") -> AsyncIterator[None]:
        """When the server starts, before its first request: the guard comes before all that gradio has in it."""
        server.middleware_stack = PageGuard(server.middleware_stack, names, uploads, max_upload_bytes, calls)
        yield

    # At its start gradio asks itself for the page, which no proxy can find.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost", host]))
    page.queue(max_size=MAX_WAITING)
    page.launch(
        server_name=f"[{host}]" if ":" in host else host, server_port=port, share=False, ssr_mode=False,
        run_history=False, footer_links=[], css=CSS, quiet=True, prevent_thread_lock=True, show_error=True,
        max_file_size=max_upload_bytes, app_kwargs={"lifespan": guarded},
    )  # fmt: skip
    logger.info("open %s in a browser; Ctrl-C ends it", page.local_url)
    page.block_thread()


def classify(classifier: VideoClassifier, path: str | None, text: str) -> View:
    """One video, with the class names typed; whatever goes wrong becomes the message."""
    if path is None:
        return View(message_html("Drop a video first."))
    try:
        (prediction,) = classifier.predict([path], typed_names(text))
        if prediction.error:
            # The folder of uploads is nothing that the user knows.
            reason = prediction.error.replace(path, Path(path).name)
            return View(message_html(f"{Path(path).name} cannot be read: {reason}"))
        return View("", prediction.scores, plot_curves(prediction), frames_html(prediction))
    except (ValueError, OSError) as error:
        return View(message_html(shorten(str(error), MESSAGE_WIDTH)))
    except Exception as error:  # the page's edge: a mistake of ours, or no memory; the next request may do better
        reason = f"{type(error).__name__}: {error}"
        logger.error("a request failed: %s", reason, exc_info=bool(os.environ.get("TRACEBACK")))
        return View(message_html(f"The server failed ({shorten(reason, MESSAGE_WIDTH)})."))


def typed_names(text: str) -> list[str]:
    """Class names typed: one per line, or in a single line with commas (a name in quotes may contain some).

    Raises:
        ValueError: too many, one too long, or quotes that do not fit.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    names = lines if len(lines) > 1 else split_names(text)
    if len(names) > MAX_NAMES:
        raise ValueError(f"{len(names)} class names; the page takes at most {MAX_NAMES}")
    for place, name in enumerate(names, start=1):
        if len(name) > MAX_NAME_CHARS:
            raise ValueError(f"class name {place} has {len(name)} characters; the page takes at most {MAX_NAME_CHARS}")
    return names


def plot_curves(prediction: Prediction) -> Figure:
    """The probability that each frame gives to the most probable classes, with a legend."""
    shown = [name for name, _ in prediction.top(NUM_SHOWN)]
    colours = [f"C{place}" for place in range(len(shown))]
    figure = Figure(figsize=(7, 2.8 + 0.22 * len(shown)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    draw_course(axes, prediction.seconds, prediction.course(NUM_SHOWN), colours)
    axes.set_title("Probability by frame")
    # The space: matplotlib leaves out names that begin with an underscore.
    labels = [f" {shorten(name, NAME_WIDTH)}" for name in shown]
    legend = figure.legend(axes.lines[::-1], labels, loc="outside lower left", frameon=False)
    for entry in legend.get_texts():
        entry.set_parse_math(False)  # a $ is a dollar
    return figure


def frames_html(prediction: Prediction) -> str:
    """The frames that the model saw, with their times."""
    figures = [
        f'<figure><img src="{_jpeg(frame)}" alt=""><figcaption>{clock(seconds)}</figcaption></figure>'
        for frame, seconds in zip(prediction.frames, prediction.seconds, strict=True)
    ]
    return f'<p>The {len(figures)} frames that the model saw:</p><div class="strip">{"".join(figures)}</div>'


def _jpeg(frame: np.ndarray) -> str:
    """A frame, uint8 [S, S, 3], as a data URL."""
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=90)
    return data_uri(content.getvalue(), "jpeg")


def player_html(path: str | None) -> str:
    """A player that goes away if the browser does not know the format, such as AVI; the model may still read it."""
    if path is None:
        return ""
    return f'<video src="/gradio_api/file={quote(path)}" controls muted onerror="this.remove()"></video>'


def message_html(text: str) -> str:
    """A message, whatever characters are in it."""
    return f'<div role="alert">{html.escape(text)}</div>'


if __name__ == "__main__":
    run_main(main)
