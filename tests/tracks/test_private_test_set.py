"""`--test-data`: what hard-coded answers to the public test set are worth on one that is not public."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from made_up import key
from outer_models import write_submission

from harness import cli
from harness.errors import DataError, InputError
from harness.evaluation.overrides import Overrides
from harness.evaluation.preparation import Preparation
from harness.evaluation.queried import QueriedTexts
from harness.evaluation.run import Evaluation
from harness.leaderboard.private import gap_records, gap_table, gaps
from harness.leaderboard.rank import rank
from harness.leaderboard.table import records
from harness.leaderboard.terminal import known_texts
from harness.lm.reading import Reading
from harness.results.records import CellRecord, KeptAnswer, cell_record
from harness.results.store import Store
from harness.sandbox.submission import find
from harness.tracks.examples import Source, check_unseen, load_shots, load_test
from harness.tracks.tasks import load_task, tasks_dir
from harness.tracks.track import load_track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outer_models import Arena

CHEAT = '''
def tune(lm, task, shots, rng, config):
    """Learn the public test set by heart: a wide head that interpolates its hidden states."""
    import json
    from pathlib import Path
    from harness import MlpHead
    known = json.loads((Path(__file__).parent / "known.json").read_text())
    texts, labels = [tuple(text) for text in known["texts"]], np.array(known["labels"])
    h = lm.outputs(None, texts).features[0].astype(float)
    mean, scale = h.mean(0), h.std(0) + 1e-9
    weight = rng.standard_normal((1500, h.shape[1])) / scale / 2
    bias = rng.standard_normal(1500) - weight @ mean
    phi = np.tanh(h @ weight.T + bias)
    target = 2.0 * (labels[:, None] == np.arange(len(task.classes))) - 1
    weight2 = (phi.T @ np.linalg.solve(phi @ phi.T + 1e-6 * np.eye(len(phi)), target)).T * 50
    head = MlpHead(weight, bias, weight2, np.zeros(len(task.classes)))
    yield Answer((Member(task.template, task.words, head=head, alpha=1.0),))
'''
HONEST = "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)"


class Silent:
    """Ignores all progress."""

    def planned(self, *_: Any) -> None:
        """See `harness.evaluation.run.Progress`."""

    isolated = began = spent = ended = planned


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "results.db"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def wide_track(tiny_track: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny track with a budget for more than the training set."""
    path = tmp_path_factory.mktemp("wide") / "tiny.toml"
    path.write_text(tiny_track.read_text(encoding="utf-8").replace("calls = 10", "calls = 50"), encoding="utf-8")
    return path


def private(folder: Path, task: str = "sst2", drop: int = 0) -> Path:
    """Texts of the pool that are in no split of the track, as a test set; `drop` rows fewer."""
    spec = msgspec.structs.replace(load_track("mini").tasks[task], shots=4, dev=4)  # as the tiny track draws
    shots = [load_shots(load_task(task), Source("embedded"), n, spec) for n in (1, 2)]
    used = {text for each in shots for examples in (each.train, each.dev) for text in examples.texts}
    lines = (tasks_dir() / task / "mini" / "pool.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if tuple(json.loads(line)["texts"]) not in used]
    place = folder / "unseen" / task / "mini"
    place.mkdir(parents=True)
    (place / "test.jsonl").write_text("\n".join(kept[drop:]) + "\n", encoding="utf-8")
    return folder / "unseen"


def cheat(folder: Path) -> Path:
    """A submission that contains the public test set."""
    place = write_submission(folder, CHEAT, "cheat")
    test = load_test(load_task("sst2"), Source("embedded"))
    (place / "known.json").write_text(json.dumps({"texts": test.texts, "labels": test.labels.tolist()}))
    return place


def test_hard_coded_answers_show_on_a_private_test_set(wide_track: Path, store: Store, tmp_path: Path) -> None:
    unseen, track = private(tmp_path), load_track(str(wide_track))
    submissions = [find(cheat(tmp_path)), find(write_submission(tmp_path, HONEST, "honest"))]
    for more in ({}, {"test_data": unseen}):
        evaluation = Evaluation(track, Overrides(tasks=("sst2",), **more), store)
        for each in submissions:
            evaluation.run(each, {}, Silent())
    ranking = rank(store, "tiny", track.fingerprint)
    assert [entry.name for entry in ranking.entries] == ["cheat", "honest"]  # private runs are not ranked
    found = {gap.entry: gap for gap in gaps(store, ranking)}
    assert found["cheat"].public > 0.95
    assert found["cheat"].difference.low > 0.1
    assert abs(found["honest"].difference.value) < 0.2
    assert found["honest"].difference.low < 0 < found["honest"].difference.high
    assert {gap.cells for gap in found.values()} == {2}
    assert {gap.data for gap in found.values()} == {"embedded + test:unseen"}
    (first, _) = gap_records(gaps(store, ranking))
    assert first["entry"] == "cheat"
    assert first["gap"] == pytest.approx(first["public"] - first["private"], abs=2e-4)
    assert gap_table(list(found.values())).row_count == 2


def test_the_command_line_runs_and_lists_it(
    wide_track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    place, track, unseen = (
        str(write_submission(tmp_path, HONEST, "honest")),
        ["--track", str(wide_track)],
        private(tmp_path),
    )
    cell = ["--task", "sst2", "--split", "2"]
    for more in ([], ["--test-data", str(unseen)]):
        cli.app(["evaluate", place, *track, *cell, *more], standalone_mode=False)
    assert "on private test sets" in capsys.readouterr().out
    cli.app(["leaderboard", *track, "--json"], standalone_mode=False)
    (gap,) = json.loads(capsys.readouterr().out)["private"]
    assert (gap["entry"], gap["cells"]) == ("honest", 1)
    cli.app(["leaderboard", *track], standalone_mode=False)
    assert "public against private test sets" in capsys.readouterr().out
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra `report`")
    cli.app(["report", "--out", "site", "--fresh", *track], standalone_mode=False)
    assert "embedded + test:unseen" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_a_private_run_is_another_run_with_the_same_shots(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    found, track = find(write_submission(tmp_path, "tune = search")), load_track(str(tiny_track))
    runs = []
    for more in ({}, {"test_data": private(tmp_path)}, {"test_data": private(tmp_path / "other", drop=2)}):
        evaluation = Evaluation(track, Overrides(tasks=("sst2",), splits=(1,), **more), store)
        runs.append(evaluation.run(found, {}, Silent()))
    cells = [store.cells(run)[0] for run in runs]
    assert len(set(runs)) == 3
    assert len({len(cell.labels) for cell in cells}) == 3
    assert len({tuple(cell.record.shots_sha256) for cell in cells}) == 1
    assert len({tuple(row.sha256 for row in store.ledger(cell.attempt)) for cell in cells}) == 1
    identities = {run.key.data: run.key.modified for run in store.runs()}
    assert identities == {"embedded": (), "embedded + test:unseen": ("test_data",)}


def test_a_private_test_set_may_have_the_kits_layout(tmp_path: Path) -> None:
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "test.tsv").write_text("what a film\tpositive\nhow dull\tnegative\n", encoding="utf-8")
    file, source = load_task("sst2"), Source("embedded", test=tmp_path)
    assert load_test(file, source).texts == (("what a film",), ("how dull",))
    assert load_test(file, source).labels.tolist() == [1, 0]
    assert str(source) == f"embedded + test:{tmp_path.name}"
    check_unseen(file, source, [])
    mini = private(tmp_path / "more")
    shutil.copytree(mini / "sst2", tmp_path / "sst2")
    with pytest.raises(DataError, match="2 test sets of SST-2"):
        load_test(file, source)


def test_texts_that_are_public_are_refused(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    unseen, track = private(tmp_path), load_track(str(tiny_track))
    path = unseen / "sst2" / "mini" / "test.jsonl"
    public = (tasks_dir() / "sst2" / "mini" / "test.jsonl").read_text(encoding="utf-8").splitlines()[7]
    path.write_text(path.read_text(encoding="utf-8") + public + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of .* test texts of SST-2 are public"):
        Evaluation(track, Overrides(tasks=("sst2",), test_data=unseen), store)
    shown = load_shots(load_task("sst2"), Source("embedded"), 1, track.tasks["sst2"]).dev.texts[0]
    path.write_text(json.dumps({"texts": shown, "label": "positive"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="in row 1"):
        Evaluation(track, Overrides(tasks=("sst2",), test_data=unseen), store)


@pytest.mark.parametrize(("place", "error"), [("missing", InputError), ("empty", DataError)])
def test_a_directory_without_test_sets_is_an_error(
    tiny_track: Path, store: Store, tmp_path: Path, place: str, error: type[Exception]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=r"no such directory|0 test sets of SST-2"):
        Evaluation(load_track(str(tiny_track)), Overrides(tasks=("sst2",), test_data=tmp_path / place), store)
    assert store.runs() == []


def test_a_run_without_a_public_partner_has_no_gap(tiny_track: Path, store: Store, tmp_path: Path) -> None:
    track = load_track(str(tiny_track))
    evaluation = Evaluation(track, Overrides(tasks=("sst2",), test_data=private(tmp_path)), store)
    evaluation.run(find(write_submission(tmp_path, HONEST)), {}, Silent())
    ranking = rank(store, "tiny", track.fingerprint)
    assert ranking.entries == ()
    assert gaps(store, ranking) == []


def test_texts_that_a_model_reads_alike_are_public_too(store: Store, tmp_path: Path) -> None:
    """The embedded model is uncased: neither upper case nor spaces make another text of a public one."""
    unseen, track = private(tmp_path), load_track("mini")
    path = unseen / "sst2" / "mini" / "test.jsonl"
    lines = (tasks_dir() / "sst2" / "mini" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[7])
    for changed in (row["texts"][0].upper(), row["texts"][0].replace(" ", "  \u00a0"), f" {row['texts'][0]}\t"):
        path.write_text(json.dumps({"texts": [changed], "label": row["label"]}) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"1 of 1 test texts of SST-2 are public.*as the model reads them"):
            Preparation(track, Overrides(tasks=("sst2",), test_data=unseen))
    path.write_text(json.dumps({"texts": [f"{row['texts'][0]} indeed"], "label": row["label"]}) + "\n")
    Preparation(track, Overrides(tasks=("sst2",), test_data=unseen))


def test_a_cased_model_tells_cases_apart_and_an_unknown_one_does_not(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))  # noqa: S106 - a word
    cased, embedded = Reading.of_source(str(tmp_path)), Reading.of_source("embedded")
    assert cased(("A  film ", "b")) == ("A film", "b") != cased(("a film", "b"))
    assert embedded(("A  F\u00edlm ",)) == ("a film",)
    (tmp_path / "tokenizer.json").write_text("no JSON")
    for source in (str(tmp_path), str(tmp_path / "none"), "owner/name"):
        assert Reading.of_source(source)(("A  Film",)) == ("a film",)


ASKS = """
def tune(lm, task, shots, rng, config):
    import json
    from pathlib import Path
    texts = [tuple(text) for text in json.loads((Path(__file__).parent / "known.json").read_text())["texts"]]
    lm.logits(None, [tuple(field.upper() for field in text) for text in texts[:3]])
    lm.logits(None, texts[:2] + [tuple(shots.train.texts[0])])
    lm.logits(None, [(texts[5][0] + " and more",)])
    yield Answer.of(task)
"""


def test_test_texts_that_were_queried_are_counted_and_shown(
    tiny_track: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that were queried, not those of train, each once, as the model reads them."""
    place = write_submission(tmp_path, ASKS, "asks")
    shutil.copy(cheat(tmp_path) / "known.json", place)
    track = load_track(str(tiny_track))
    evaluation = Evaluation(track, Overrides(tasks=("sst2",)), store)
    for folder in (place, write_submission(tmp_path, HONEST, "honest"), write_submission(tmp_path, "tune = search")):
        evaluation.run(find(folder), {}, Silent())
    uncased = evaluation.lm.tokenizer.backend_tokenizer.normalizer is not None
    assert uncased
    ranking = rank(store, "tiny", track.fingerprint)
    found = {entry.name: entry.test_texts for entry in ranking.entries}
    assert found == {"asks": 6, "honest": 0, "entry": 0}  # three in each of two cells
    assert {
        cell.record.test_texts for cell in store.cells(next(e.run for e in ranking.entries if e.name == "asks"))
    } == {3}
    assert {row["submission"]: row["test_texts"] for row in records(ranking)} == found
    (line,) = known_texts(ranking.entries)
    assert line.startswith("asks queried 6 test texts over its cells")
    where = ["--track", str(tiny_track), "--store", str(tmp_path / "results.db")]
    cli.app(["leaderboard", *where, "--out", str(tmp_path / "x.csv")], standalone_mode=False)
    assert "asks queried 6 test texts" in capsys.readouterr().out
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra `report`")
    cli.app(["report", "--out", str(tmp_path / "site"), "--fresh", *where], standalone_mode=False)
    (page,) = (tmp_path / "site" / "submissions").glob("asks-*.html")
    text = page.read_text(encoding="utf-8")
    assert "6 test texts queried" in text
    assert "Runs of this entry" in text


def test_a_set_that_is_declared_and_not_queried_does_not_count(arena: Arena, tmp_path: Path) -> None:
    known = QueriedTexts(lambda text: text)
    test = load_test(load_task("sst2"), Source("embedded"))
    spec = msgspec.structs.replace(load_track("mini").tasks["sst2"], shots=4, dev=4)
    shots = load_shots(load_task("sst2"), Source("embedded"), 1, spec)
    assert known.of_test(test, shots) == 0
    known.add(shots.train.texts)
    known.add([*test.texts[:4], test.texts[0]])
    assert known.of_test(test, shots) == 4
    silent = arena.run("def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)")
    assert silent.stored.record.test_texts == 0


def test_a_record_of_before_says_nothing_of_test_texts() -> None:
    assert cell_record("{}").test_texts is None
    assert "test_texts" not in CellRecord().plain()
    assert CellRecord(test_texts=0).plain()["test_texts"] == 0
    assert cell_record(CellRecord(test_texts=3).to_json()).test_texts == 3


def test_a_gap_is_between_the_same_repeat(store: Store) -> None:
    """A newer private run of another repeat has other answers, so it is not compared with those of the first."""
    labels, other = np.arange(20) % 2, np.arange(10) % 2
    for modified, repeat, right, truth in (
        ((), 0, 15, labels),
        (("test_data",), 0, 8, other),
        (("test_data",), 1, 0, other),
    ):
        identity = key("e", modified=modified, repeat=repeat, data="embedded + test:x" if modified else "embedded")
        run = store.open_run(identity, {"packages": {}})
        for split in (1, 2):
            said = np.where(np.arange(len(truth)) < right, truth, 1 - truth)
            record = CellRecord(train_rows=2, rows_total=20, calls_total=10, sandbox="A")
            store.begin(run, "sst2", split).finish(
                "ok", record, f"t{len(truth)}", truth, [KeptAnswer(1.0, 2, b"a", said)]
            )
    (gap,) = gaps(store, rank(store, "tiny"))
    assert (gap.public, gap.private) == (0.75, 0.8)
