"""``--report`` of the two test commands, on real videos."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def odd_list(debug_data, tmp_path) -> Path:
    path = tmp_path / "odd.txt"
    path.write_text("gone.mp4 1\n" + (debug_data / "val.txt").read_text())
    return path


def test_a_close_set_test_reports_mistakes_with_pictures_and_failures(repo_root, debug_config, odd_list, tmp_path):
    main = runpy.run_path(str(repo_root / "test.py"))["main"]
    arguments = ["--config", str(debug_config), "--weights", "clip", "--precision", "fp32"]
    arguments += ["--output", str(tmp_path / "out"), f"data.val_list={odd_list}"]
    plain = main(arguments)
    results = main([*arguments, "--report", str(tmp_path / "new" / "report")])
    assert results == plain
    page = (tmp_path / "new" / "report" / "index.html").read_text()
    assert f"top-1 {results['top1']:.2f} %" in page
    assert results["list_fingerprint"] in page
    num_mistakes = round(9 * (1 - results["top1"] / 100)) - 1
    assert 0 < num_mistakes <= page.count("data:image/jpeg") + 4  # at most two of a pair of classes
    assert "<code>gone.mp4</code></td><td>no such file" in page
    assert "a bar moving left" in page


def test_a_test_of_several_lists_has_a_section_for_each(repo_root, debug_config, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(f"base: {debug_config}\ndata: {{dataset: other}}\n")
    main = runpy.run_path(str(repo_root / "test_zeroshot.py"))["main"]
    main(["--config", str(debug_config), str(other), "--weights", "clip", "--output", str(tmp_path / "out"),
          "--report", str(tmp_path / "report")])  # fmt: skip
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<section") == 2
    assert "half-class top-1" in page
    assert len(list((tmp_path / "report").glob("*.png"))) == 4


@pytest.mark.slow
def test_of_two_processes_one_writes(repo_root, debug_config, odd_list, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               repo_root / "test.py", "--config", debug_config, "--weights", "clip", "--output", tmp_path / "out",
               "--report", tmp_path / "report", f"data.val_list={odd_list}"]  # fmt: skip
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("report/index.html") == 1
    page = (tmp_path / "report" / "index.html").read_text()
    assert "gone.mp4" in page
    assert "9</b>videos" in page
