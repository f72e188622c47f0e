"""docs/images/rooms.svg is what docs/draw_rooms.py draws of the imports as they are."""

import runpy
import xml.etree.ElementTree as ET

import pytest


@pytest.fixture
def script(repo_root) -> dict:
    if not (repo_root / ".git").exists():
        pytest.skip("not a clone")
    return runpy.run_path(str(repo_root / "docs" / "draw_rooms.py"))


def test_the_picture_shows_the_imports_as_they_are(script):
    assert script["PICTURE"].read_text(encoding="utf-8") == script["draw"](), "run python docs/draw_rooms.py"


def test_every_room_and_every_arrow_is_in_it(script):
    texts = [
        "".join(each.itertext()) for each in ET.fromstring(script["draw"]()).iter("{http://www.w3.org/2000/svg}text")
    ]
    for room in ("reports", "engine", "modules", "datasets", "clip", "utils"):
        assert any(text.startswith(f"{room}/") for text in texts), room
    counts = script["count_imports"](script["tracked"]())
    assert all(str(counts[pair]) in texts for pair in script["LANES"] if counts[pair])


def test_a_new_way_between_rooms_is_an_error(script, monkeypatch):
    lanes = script["LANES"]
    monkeypatch.delitem(lanes, ("modules", "clip"))
    with pytest.raises(ValueError, match=r"new way .*\('modules', 'clip'\)"):
        script["draw"]()
