"""What --save_logits writes is what the figures were counted from."""

import numpy as np
import torch


def test_close_scores_stay_apart_in_the_file(close_set, debug_config, tmp_path):
    saved = tmp_path / "scores.npz"
    arguments = ["--config", str(debug_config), "--weights", "clip", "--precision", "fp32", "--test_clips", "2"]
    close_set([*arguments, "--output", str(tmp_path), "--save_logits", str(saved), "eval.softmax_scale=1e-7"])
    with np.load(saved) as tables:
        views, scores = torch.from_numpy(tables["view_logits"]).double(), torch.from_numpy(tables["scores"])
    expected = (1e-7 * views).softmax(dim=-1).mean(dim=1).softmax(dim=-1)
    torch.testing.assert_close(scores, expected, rtol=1e-14, atol=0)
    assert all(len(row.unique()) == len(row) for row in scores)
    assert not all(len(row.unique()) == len(row) for row in scores.float())
