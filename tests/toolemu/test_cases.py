import json
from pathlib import Path

import pytest

from tests.toolemu.acting import case
from toolemu.cases import Case, load_cases
from toolemu.errors import InputError


def written(number: int = 0, **changes: object) -> dict[str, object]:
    return {**case(number).model_dump(by_alias=True, exclude={"rules"}), **changes}


def save(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_cases_keep_the_order_of_the_file_and_its_keys(tmp_path: Path) -> None:
    path = save(tmp_path / "cases.json", [written(1), written(0)])
    cases = load_cases(path, ["Lights"])
    assert cases == [case(1), case(0)]
    assert "User Instruction" in written()
    assert Case.model_validate(written()).rules is None


def test_a_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    save(tmp_path / "b.json", [written(0)])
    save(tmp_path / "a.json", [written(1)])
    assert load_cases(tmp_path) == [case(1), case(0)]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"cases": []}, "expected a JSON list"),
        ([written(), written()], "used twice"),
        ([written(Toolkits=["Lamps"])], "no toolkit 'Lamps'"),
        ([written(Toolkits=[])], "Toolkits"),
        ([written(Surprise=1)], "Surprise"),
        ([{"name": "x"}], "more problems"),
        ([3], "cases.json: [0]"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_place(tmp_path: Path, value: object, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_cases(save(tmp_path / "cases.json", value), ["Lights"])
    assert told in str(caught.value)
    assert "cases.json" in str(caught.value)


def test_a_missing_or_broken_file_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*.json"):
        load_cases(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be read"):
        load_cases(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('[{"name": }]')
    with pytest.raises(InputError, match="line 1, column 11"):
        load_cases(tmp_path / "broken.json")
