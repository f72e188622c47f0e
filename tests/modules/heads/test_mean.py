import torch

from modules.heads.mean import MeanPooling


def test_frame_features_pass_as_they_are():
    x = torch.randn(2, 3, 8)
    head = MeanPooling()
    assert torch.equal(head(x), x)
    assert not head.state_dict()
