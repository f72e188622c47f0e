"""Files of the four-key format: never half written, and errors that name the file."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.formats.ours import read_checkpoint
from utils.weights.four_keys import read_four_keys, save_checkpoint
from utils.weights.state_dicts import weights_sha256

READERS = pytest.mark.parametrize("read", [read_checkpoint, read_four_keys])


def test_the_hash_of_weights_depends_on_names_shapes_and_values_alone():
    state = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(1.0)}
    same = {"a": torch.tensor(1.0, dtype=torch.float16), "b": torch.arange(6.0).view(2, 3).T.contiguous().T}
    assert weights_sha256(state) == weights_sha256(same)
    others = [
        {**state, "b": state["b"].view(3, 2)},
        {**state, "a": torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))},
        {"c": state["b"], "a": state["a"]},
    ]
    assert len({weights_sha256(other) for other in [state, *others]}) == 4


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pt"
    content = {"model_state_dict": {"a": torch.ones(3)}, "fusion_model_state_dict": {}}
    save_checkpoint(path, content)
    with pytest.raises(Exception, match=r"(?i)pickle|local object"):
        save_checkpoint(path, content | {"more": lambda: None})
    assert torch.equal(read_checkpoint(path)["model_state_dict"]["a"], torch.ones(3))


@READERS
def test_a_missing_file_is_an_error_that_names_it(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*gone.pt: .*no such file"):
        read(tmp_path / "gone.pt")


@READERS
@given(garbage=st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"\x80\x02" + tail))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_an_error_that_names_the_file(read, garbage, tmp_path):
    (tmp_path / "garbage.pt").write_bytes(garbage)
    with pytest.raises(ValueError, match=r"checkpoint .*garbage.pt: "):
        read(tmp_path / "garbage.pt")


@READERS
@pytest.mark.parametrize(
    "content",
    [
        {"weights": 1},
        [1, 2],
        torch.zeros(3),
        {"model_state_dict": {}},
        {"model_state_dict": None, "fusion_model_state_dict": None},
        {1: 2},
    ],
    ids=["other keys", "list", "tensor", "one of two", "not state dicts", "numbers for keys"],
)
def test_another_format_is_an_error_that_says_what_was_expected(read, content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"checkpoint .*other.pt: expected"):
        read(tmp_path / "other.pt")
