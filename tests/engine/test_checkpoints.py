"""The checkpoints in a run folder."""

from engine.checkpoints import CheckpointStore


def test_what_a_killed_save_left_goes_with_the_next_one(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    first = store.save({"epoch": 0}, 0, 10)
    (store.folder / ".0123abcd.77.part").write_bytes(b"half a checkpoint")
    second = store.save({"epoch": 0}, 0, 20)
    assert sorted(store.folder.iterdir()) == [first, second]
