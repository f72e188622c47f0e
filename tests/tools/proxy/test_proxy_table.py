"""The page of the proxy world: figures, differences and verdicts from a small tree of results."""

import json

import pytest
import yaml

from modules.build import load_config
from tools.proxy.rows import SETS, rows_of, runs_of
from tools.proxy.table import main
from utils.config import to_yaml

SHARES = {"frozen": 0.8, "plain": 0.3, "mote": 0.95, "no_mse": 0.5}


@pytest.fixture
def tested(small_world, write_tests):
    """Two runs of each row, and where they were trained."""
    for row in rows_of(" ".join(SHARES)):
        for planned in runs_of(row, (0,), 2, "final"):
            write_tests(planned, SHARES[row.name])
            if planned.run:
                planned.run.mkdir(parents=True)
                (planned.run / "config.yaml").write_text(to_yaml(load_config(planned.config, planned.overrides)))
    return small_world


def written(tested, seeds: int = 2) -> list[str]:
    main(["--seeds", str(seeds), "--page", "docs/page.md", "--picture", "docs/images/proxy.png"])
    return (tested / "docs" / "page.md").read_text().splitlines()


def cells(lines: list[str], *first: str) -> list[str]:
    (line,) = (line for line in lines if line.startswith("| " + " | ".join(first) + " |"))
    return [cell.strip() for cell in line.strip("|").split("|")][len(first) :]


def top1(tested, row: str, form: str) -> dict[str, list[float]]:
    """Of each list, in both runs."""
    folders = [run.results / form for run in runs_of(rows_of(row)[0], (0,), 2, "final")]
    close = [json.loads((folder / "close" / "results.json").read_text()) for folder in folders]
    splits = [json.loads((folder / "zero_shot" / "results.json").read_text())["splits"] for folder in folders]
    return {"close": [each["top1"] for each in close]} | {
        name: [each[name]["top1"] for each in splits] for name in splits[0]
    }


def test_a_line_has_the_mean_and_std_of_its_runs(tested):
    found, expected = cells(written(tested), "MoTE", "both"), top1(tested, "mote", "both")
    mean, half_gap = sum(expected["close"]) / 2, abs(expected["close"][0] - expected["close"][1]) / 2
    assert found[0] == f"{mean:.1f} ± {half_gap:.1f}"
    appearance = [sum(expected[name][run] for name in ("objects", "scenes", "colours", "styles")) / 4 for run in (0, 1)]
    assert found[6].startswith(f"{sum(appearance) / 2:.1f} ± ")
    zero_shot = [(4 * appearance[run] + expected["motions"][run]) / 5 for run in (0, 1)]
    assert found[7].startswith(f"{sum(zero_shot) / 2:.1f} ± ")
    harmonic = [2 * c * z / (c + z) for c, z in zip(expected["close"], zero_shot, strict=True)]
    assert found[8].startswith(f"{sum(harmonic) / 2:.1f} ± ")


def test_every_form_is_compared_with_the_row_of_reference_and_with_raw(tested):
    lines = written(tested)
    for form in ("raw", "average", "modulation", "both"):
        ours, theirs = (top1(tested, row, form)["motions"] for row in ("mote", "plain"))
        gap = sum(ours) / 2 - sum(theirs) / 2
        assert cells(lines, f"MoTE, {form}, against plain FFN")[2].strip("*").startswith(f"{gap:+.1f} ± ")
    assert cells(lines, "plain FFN, both, against frozen CLIP, raw")[3].startswith("**-")
    assert len(cells(lines, "MoTE, modulation against raw")) == 4


def test_claims_are_computed(tested):
    text = "\n".join(written(tested))
    frozen, plain, mote = (top1(tested, *which) for which in (("frozen", "raw"), ("plain", "raw"), ("mote", "both")))
    zero_shot = [sum(sum(each[name]) / 2 for name in SETS) / 5 for each in (frozen, plain, mote)]
    assert f"by 10 points or more: **holds** ({zero_shot[0] - zero_shot[1]:+.1f} ± " in text
    assert f"at least as well as frozen CLIP: **holds** ({zero_shot[2] - zero_shot[0]:+.1f} ± " in text
    assert f"Plain FFN, raw: close-set above 60 %: **does not hold** ({sum(plain['close']) / 2:.1f} ± " in text
    assert f"MoTE, both: close-set above 60 %: **holds** ({sum(mote['close']) / 2:.1f} ± " in text


def test_rows_that_were_not_tested_are_named_and_not_shown(tested):
    text = "\n".join(written(tested))
    assert "and so are not below: Parts of MoTE (MoTE without merged pass); Other systems; " in text
    assert "| MoTE without merged pass" not in text
    assert "MoTE without feature MSE | raw" in text
    assert "{{" not in text
    assert "None" not in text
    assert "(images/proxy.png)" in text
    assert (tested / "docs" / "images" / "proxy.png").stat().st_size > 10_000


def test_a_row_of_the_claims_must_be_there(tested):
    with pytest.raises(FileNotFoundError, match=r"^plain, mote: not tested in all of these runs"):
        written(tested, seeds=3)


def test_a_run_of_other_settings_than_its_row_is_an_error(tested):
    path = tested / "exps/proxy/proxy/clip_0/no_mse_1025/config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["solver"]["lr"], settings["resume"] = 0.5, "auto"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(
        ValueError, match=r"no_mse_1025 was trained with other settings .*: solver\.lr: 0\.001, was 0\.5; "
    ):
        written(tested)
    settings["solver"]["lr"] = 0.001
    path.write_text(yaml.safe_dump(settings))
    assert written(tested)  # that it was resumed does not matter


@pytest.mark.parametrize("facts", [{"num_clips": 4}, {"precision": "bf16"}, {"list_fingerprint": "other"}])
def test_rows_that_were_tested_otherwise_are_not_compared(tested, write_tests, facts):
    write_tests(runs_of(rows_of("no_mse")[0], (0,), 2, "final")[1], 0.5, **facts)
    with pytest.raises(ValueError, match="no_mse: close was tested with other videos, views or precision"):
        written(tested)


def test_scores_that_are_not_those_of_the_results_are_an_error(tested):
    path = tested / "exps/proxy/results/final/clip_0/mote_1024/both/close/results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": 12.5}))
    with pytest.raises(ValueError, match=r"both/close/scores\.npz: .* % are right, but results\.json .* 12\.5"):
        written(tested)


def test_a_test_that_is_missing_is_named(tested):
    (tested / "exps/proxy/results/final/clip_0/mote_1025/average/zero_shot/scores_scenes.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"mote_1025/average/zero_shot/scores_scenes\.npz: no such file"):
        written(tested)
