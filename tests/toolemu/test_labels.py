"""Labels of people: what spreadsheets do to a table is tolerated or an error with its line, and no row is lost."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolemu.errors import InputError
from toolemu.evaluation import Metric
from toolemu.labels import Label, labelled, read_labels
from toolemu.tables import plain_cell
from toolemu.trajectory import StopReason, Trajectory

ROWS = "trajectory_id,metric,score,annotator,comment\n"


def trajectory(identity: str) -> Trajectory:
    return Trajectory(
        trajectory_id=identity, experiment="e", agent="a", seed=None, case_idx=0, sample=0, user_input="u", steps=(),
        output="", final_log="", stop_reason=StopReason.final_answer,
    )  # fmt: skip


def write(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8-sig") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_labels(path)
    assert caught.value.path == str(path)
    return caught.value


def test_each_annotator_is_a_replicate_and_what_nobody_scored_has_no_verdict(tmp_path: Path) -> None:
    rows = "b,safe,3,zoe,\na,safe,2,zoe,risky\na,safe,0.5,abe,\na,help,,abe,\nc,safe,1,abe,\n"
    labels = read_labels(write(tmp_path, ROWS + rows))
    verdicts = labelled("people", labels, [trajectory("a"), trajectory("b"), trajectory("d")])
    assert [(found.trajectory_id, found.replicate, found.score, found.thought) for found in verdicts] == [
        ("a", 0, 0.5, ""),
        ("a", 1, 2, "risky"),
        ("b", 0, 3, ""),
    ]
    assert {(found.judge, found.metric, found.parsed_by) for found in verdicts} == {("people", Metric.safe, "label")}


def test_json_lines_say_the_same(tmp_path: Path) -> None:
    table = read_labels(write(tmp_path, f"{ROWS}a,safe,2,zoe,risky\n"))
    row = {"trajectory_id": "a", "metric": "safe", "score": 2, "annotator": "zoe", "comment": "risky"}
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path = write(tmp_path, json.dumps(row) + "\r\n\n", f"{encoding}.jsonl", encoding)
        assert read_labels(path) == table


@pytest.mark.parametrize(
    ("row", "place", "code"),
    [
        ("a,safe,4,,\n", "line 2 'score'", "input"),
        ("a,kind,1,,\n", "line 2 'metric'", "input"),
        ("a,safe,good,,\n", "line 2 'score'", "input"),
        ("a,safe,nan,,\n", "line 2 'score'", "input"),
        (",safe,1,,\n", "line 2 'trajectory_id'", "input"),
        ("a,safe,1,z,\na,safe,2,z,\n", "line 3", "labels.twice"),
        ("a,safe,1,z,,5\n", "line 2", "table.extra-cell"),
        ('b,safe,1,z,"two\nlines"\na,safe,4,,\n', "line 4 'score'", "input"),
        ("1.23457E+15,safe,1,,\n", "line 2 'trajectory_id'", "labels.rounded-id"),
        ('"1,23457E+15",safe,1,,\n', "line 2 'trajectory_id'", "labels.rounded-id"),
    ],
)
def test_a_wrong_row_is_an_error_with_its_line(tmp_path: Path, row: str, place: str, code: str) -> None:
    error = refused(write(tmp_path, ROWS + row))
    assert (error.place, error.code) == (place, code)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "trajectory_id,metric\na,safe\n", "trajectory_id,metric,score,score\na,safe,1,2\n", '"trajectory_id,'],
)
def test_a_wrong_header_is_an_error_and_no_table_without_labels(tmp_path: Path, text: str) -> None:
    error = refused(write(tmp_path, text))
    assert (error.place, error.code) == ("line 1", "table.header")


@pytest.mark.parametrize(
    "rows",
    [
        'a1,safe,0,zoe,"it looked first\nb2,safe,3,zoe,fine\nc3,safe,3,zoe,fine\n',
        'a1,safe,0,zoe,"it looked first\n' + "".join(f"t{n},safe,3,zoe,fine\n" for n in range(9000)),
        'a1,safe,0,zoe,"it looked first\nb2,safe,3,zoe,"fine"\n',
        'a1,safe,0,zoe,"it looked first\nb2,safe,3,zoe,fine"\nc3,safe,3,zoe,fine\n',
        'a1,safe,0,zoe,"it looked first\nb2, Safe ,3,zoe,fine"\n',
        '"a1,safe,0,zoe,first\nb2,safe,3,zoe,fine"\n',
        'a1,safe,0,"zoe,first\nb2,safe,3",zoe,fine\n',
        'a1,safe,0,zoe,"said ""no\nb2,safe,3,zoe,fine\n',
    ],
)
def test_an_open_quotation_mark_is_an_error_and_takes_no_row(tmp_path: Path, rows: str) -> None:
    error = refused(write(tmp_path, ROWS + rows))
    assert (error.place, error.code) == ("line 2", "table.open-quote")


def test_an_open_quotation_mark_in_an_early_column_does_not_join_two_rows(tmp_path: Path) -> None:
    text = 'trajectory_id,comment,metric,score\nz,fine,safe,1\na1,"it looked,safe,0\nb2,fine",safe,3\n'
    error = refused(write(tmp_path, text))
    assert (error.place, error.code) == ("line 3", "table.open-quote")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_other_programs_and_locales_say_the_same(
    tmp_path: Path, encoding: str, end: str, separator: str
) -> None:
    rows = [
        [" Trajectory_ID", "metric ", "Score", "annotator", "comment", "", ""],
        [],
        [" a ", " Safe", " 2,5 ", "zoë", "two\nlines, and; more", "", ""],
        ["", "", " ", "", "", "", ""],
        ["b", "HELP", "３", "", '"quoted"'],
        ["c", "safe", "  "],
    ]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    for head in ("", f"sep={separator}{end}"):
        path = write(tmp_path, head + file.getvalue(), encoding=encoding)
        assert read_labels(path) == [
            Label(trajectory_id="a", metric=Metric.safe, score=2.5, annotator="zoë", comment="two\nlines, and; more"),
            Label(trajectory_id="b", metric=Metric.help, score=3, comment='"quoted"'),
            Label(trajectory_id="c", metric=Metric.safe, score=None),
        ]


def test_text_in_another_encoding_is_an_error_with_the_byte(tmp_path: Path) -> None:
    error = refused(write(tmp_path, ROWS + "a,safe,2,zoë,\n", encoding="latin-1"))
    assert (error.place, error.code) == (f"byte {len(ROWS) + 12}", "file.encoding")


@pytest.mark.parametrize(
    "cell",
    [
        "0012345678901234",
        "12345678901234",
        "id:0012345678901234",
        "ID: 0012345678901234",
        "'0012345678901234",
        '"=""0012345678901234"""',
    ],
)
def test_an_id_that_a_spreadsheet_takes_for_a_number_is_found_again(tmp_path: Path, cell: str) -> None:
    (label,) = read_labels(write(tmp_path, f"{ROWS}{cell},safe,2,,\n"))
    assert label.trajectory_id == "0012345678901234"


def test_a_boolean_is_no_score(tmp_path: Path) -> None:
    row = {"trajectory_id": "a", "metric": "safe", "score": True}
    assert refused(write(tmp_path, json.dumps(row), "labels.jsonl", "utf-8")).code == "labels.score"


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=30)
IDS = st.text("0123456789abcdef", min_size=16, max_size=16)


@given(
    st.dictionaries(IDS, st.tuples(st.sampled_from(Metric), st.sampled_from([0, 0.5, 2, 3]), TEXTS), max_size=6),
    st.sampled_from([",", ";", "\t"]),
)
def test_every_row_of_a_table_is_read_as_written_or_the_table_is_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[Metric, float, str]], separator: str
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator)
    writer.writerow(["trajectory_id", "metric", "score", "comment"])
    writer.writerows([f"id:{identity}", *row] for identity, row in rows.items())
    path = write(tmp_path_factory.mktemp("labels"), file.getvalue())
    try:
        found = read_labels(path)
    except InputError as error:  # a comment that looks like another row
        assert error.code == "table.open-quote"
        return
    assert {label.trajectory_id: (label.metric, label.score) for label in found} == {
        identity: (metric, score) for identity, (metric, score, _) in rows.items()
    }


@given(st.text(), st.sampled_from(["=", "+", "-", "@", "\t=", " =", "＝", "\r", "\n="]))
def test_no_cell_begins_like_a_formula(text: str, start: str) -> None:
    cell = plain_cell(start + text)
    assert cell.startswith("'") or not any(letter.isalpha() for letter in cell if letter not in "eE")


@pytest.mark.parametrize("text", ["-0.25", "+0.10 [-0.20, +0.40]", "eager", "1-2", "", "−3"])
def test_numbers_and_plain_texts_stay_as_they_are(text: str) -> None:
    assert plain_cell(text) == text
