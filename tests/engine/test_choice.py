"""Multiple choice: options of a video's own, as many as there are."""

import pytest
import torch

from engine.protocols.choice import choice_figures, choice_scores


def test_scores_of_unequal_numbers_of_options():
    texts = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 1.0], [1.0, 0.0]])
    scores = choice_scores(texts, torch.tensor([[2.0, 0.0], [0.0, 1.0]]), [3, 2])
    assert scores[0].tolist() == pytest.approx([100.0, 0.0, 100 / 2**0.5])
    assert scores[1].tolist() == pytest.approx([100.0, 0.0, -torch.inf])
    assert choice_figures(scores, torch.tensor([0, 1])) == {"top1": 50.0}


def test_a_video_that_was_not_read_is_wrong():
    scores = choice_scores(torch.eye(2).repeat(2, 1), torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]), [2, 2])
    assert choice_figures(scores, torch.tensor([0, 0])) == {"top1": 50.0}


def test_more_than_five_options_have_a_top_5():
    scores = torch.arange(6.0).repeat(2, 1)
    assert choice_figures(scores, torch.tensor([5, 0])) == {"top1": 50.0, "top5": 50.0}
    assert "top5" not in choice_figures(scores[:, :5], torch.tensor([4, 0]))
