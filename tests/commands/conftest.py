"""What the tests of commands share: a running app.py, and configurations of several splits."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml

import train

START_S = 120  # generous: on a busy machine imports alone take long


class RunningPage(NamedTuple):
    """A page that takes uploads of 1 MB."""

    url: str
    port: int
    uploads: Path
    log: Path

    def upload_files(self) -> list[Path]:
        return [path for path in self.uploads.rglob("*") if path.is_file()]


@pytest.fixture
def three_splits(debug_config, tmp_path) -> list[str]:
    """Configurations of the debug data with three validation lists."""
    tree = yaml.safe_load(debug_config.read_text())
    lines = Path(tree["data"]["val_list"]).read_text().splitlines(keepends=True)
    paths = []
    for number, kept in enumerate((lines[:5], lines[3:], lines)):
        (tmp_path / f"{number}.txt").write_text("".join(kept))
        changed = tree | {"data": tree["data"] | {"val_list": str(tmp_path / f"{number}.txt")}}
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(changed))
    return list(map(str, paths))


@pytest.fixture(scope="package")
def page_weights(debug_config, tmp_path_factory) -> Path:
    """A checkpoint of a short run on the debug data."""
    folder = tmp_path_factory.mktemp("app runs")
    train.main(["--config", str(debug_config), "--precision", "fp32", "solver.epochs=1", f"data.output_path={folder}"])
    return next(folder.rglob("last_model.pt"))


@pytest.fixture(scope="package")
def running_page(page_weights, repo_root, tmp_path_factory):
    """A running app.py. Told to stop, it ends well; it leaves no upload behind and no traceback in its log."""
    pytest.importorskip("gradio", reason="gradio is not installed (requirements-app.txt)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uploads, log = tmp_path_factory.mktemp("uploads"), tmp_path_factory.mktemp("log") / "log.txt"
    command = [sys.executable, "app.py", "--weights", str(page_weights), "--port", str(port), "--precision", "fp32"]
    proxy = "http://127.0.0.1:9"  # there is none
    environment = os.environ | {"GRADIO_TEMP_DIR": str(uploads), "HTTP_PROXY": proxy, "http_proxy": proxy}
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--max_upload_mb", "1"], cwd=repo_root, stdout=output, stderr=output, env=environment
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            _wait_for(url, process, log)
            (folder,) = uploads.glob("mote-uploads-*")
            yield RunningPage(url, port, folder, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=START_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    assert list(uploads.glob("mote-*")) == []
    assert "Traceback" not in log.read_text()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_S
    opener = build_opener(ProxyHandler({}))
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            opener.open(url).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no answer within {START_S} s: {log.read_text()}")
