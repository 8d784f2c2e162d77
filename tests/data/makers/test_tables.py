"""tables_to_jsonl: a row is a record or is listed; columns are named; XTuner's files become messages."""

import json

import openpyxl
import pytest

from mmtune.data.formats import parse_record
from mmtune.data.records import read_records

DOCTOR = "You are a doctor."
ROWS = [
    ("question", "question type", "drug", "answer"),
    ("How many tablets?", "dose", "aspirin", "One a day."),
    ("儿童可以吃吗？", "child", "aspirin", "请遵医嘱。"),
    (None, "dose", "aspirin", "Lost."),
    ("No answer?", "dose", "aspirin", None),
    (None, None, None, None),
    ("How much?", "dose", "aspirin", 3.0),
    ("Broken?", "dose", "aspirin", "#N/A"),
    ("Marked <image>?", "dose", "aspirin", "x"),
]
REASONS = {
    4: "no question",
    5: "no answer",
    6: "the row is empty",
    8: "the answer is the error #N/A",
    9: "0 images but 1 '<image>' mark in the user's text. Each image needs one mark.",
}


def write_xlsx(path, *sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets:
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    lines = [delimiter.join("" if cell is None else f'"{cell}"' for cell in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


@pytest.mark.parametrize("name", ["qa.xlsx", "qa.csv", "qa.tsv"])
def test_each_row_is_a_record_or_is_listed(tool, desk, capsys, read_lines, name):
    if name.endswith("xlsx"):
        write_xlsx(desk / name, ("DrugQA", ROWS))
    else:
        write_csv(desk / name, ROWS, "," if name.endswith("csv") else "\t", "utf-8-sig")
    argv = ("-i", name, "-o", "out.jsonl", "--question", "question", "--answer", "answer", "--system", DOCTOR)
    assert tool("tables_to_jsonl", *argv) == 0
    records = read_lines("out.jsonl")
    assert [[turn["content"] for turn in record["messages"]] for record in records] == [
        [DOCTOR, "How many tablets?", "One a day."],
        [DOCTOR, "儿童可以吃吗？", "请遵医嘱。"],
        [DOCTOR, "How much?", "3" if name.endswith("xlsx") else "3.0"],
    ]
    assert [turn["role"] for turn in records[0]["messages"]] == ["system", "user", "assistant"]
    assert {row["line"]: row["reason"] for row in read_lines("out.skipped.jsonl")} == REASONS
    shown = capsys.readouterr()
    assert "8 rows = 3 records in out.jsonl + 5 left out, listed in out.skipped.jsonl" in shown.out
    assert f"{name}:4: no question" in shown.err


def test_columns_of_images_and_system_messages(tool, desk, read_lines):
    rows = [("q", "a", "picture", "who"), ("What?", "A cat.", "1.png", "Be brief."), ("Hello?", "Hi.", "", "")]
    write_csv(desk / "qa.csv", rows)
    argv = ("--question", "q", "--answer", "a", "--image", "picture", "--system-column", "who")
    assert tool("tables_to_jsonl", "-i", "qa.csv", "-o", "out.json", *argv) == 0
    first, second = (parse_record(record) for record in read_records("out.json"))
    assert first.images == ("1.png",)
    assert [message.text for message in first.messages] == ["Be brief.", "\nWhat?", "A cat."]
    assert second.images == ()
    assert [message.role for message in second.messages] == ["user", "assistant"]
    assert not (desk / "out.skipped.jsonl").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--question", "qestion", "--answer", "answer"],
            "no column 'qestion'. Did you mean 'question'? Columns: quest",
        ),
        (["--question", "question", "--answer", "drug", "--image", "x"], "no column 'x'. Columns: question, question"),
        (["--question", "question"], "--question, --answer: a table needs both"),
        (
            ["--question", "question", "--answer", "answer", "--sheet", "DrugQ"],
            "no sheet 'DrugQ'. Did you mean 'DrugQA'?",
        ),
        (["--question", "question", "--answer", "answer", "-i", "two.xlsx"], "has 2 sheets: One, Two. Name one with"),
        (["--question", "question", "--answer", "answer", "-i", "none.xlsx"], "none.xlsx: cannot be opened"),
        (["--question", "question", "--answer", "answer", "-i", "none.csv"], "none.csv: cannot be opened"),
        (["--question", "question", "--answer", "answer", "-i", "text.xlsx"], "text.xlsx: is no Excel workbook"),
        (["--question", "问", "--answer", "答", "-i", "gbk.csv"], "gbk.csv: is not utf-8. Save it as UTF-8, or name"),
        (["--question", "问", "--answer", "答", "-i", "gbk.csv", "--encoding", "x-9"], "unknown encoding 'x-9'"),
        (["--question", "q", "--answer", "q", "-i", "twice.csv"], "2 columns are named 'q'"),
        (["--question", "q", "--answer", "a", "-i", "bare.csv"], "no usable record among 0"),
        (["--from", "xtuner", "--question", "q"], "--question: has no meaning for --from xtuner"),
        (["--from", "xtuner", "--sheet", "q"], "--sheet: has no meaning for --from xtuner"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tool, desk, capsys, argv, words):
    write_xlsx(desk / "qa.xlsx", ("DrugQA", ROWS))
    write_xlsx(desk / "two.xlsx", ("One", ROWS), ("Two", ROWS))
    (desk / "text.xlsx").write_text("question,answer\n")
    write_csv(desk / "gbk.csv", [("问", "答"), ("好吗", "好")], encoding="gb18030")
    write_csv(desk / "twice.csv", [("q", "q"), ("a", "b")])
    write_csv(desk / "bare.csv", [("q", "a")])
    before = sorted(path.name for path in desk.iterdir())
    assert tool("tables_to_jsonl", "-i", "qa.xlsx", "-o", "out.jsonl", *argv) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert sorted(path.name for path in desk.iterdir()) == before


def test_another_encoding_is_read_when_named(tool, desk, read_lines):
    write_csv(desk / "gbk.csv", [("问", "答"), ("好吗", "好")], encoding="gb18030")
    argv = ("-i", "gbk.csv", "-o", "out.jsonl", "--question", "问", "--answer", "答", "--encoding", "gb18030")
    assert tool("tables_to_jsonl", *argv) == 0
    assert read_lines("out.jsonl")[0]["messages"][0]["content"] == "好吗"


def test_xtuner_conversations_become_messages(tool, desk, capsys, read_lines):
    records = [
        {"conversation": [{"system": DOCTOR, "input": "Q1", "output": "A1"}]},
        {"id": 7, "conversation": [{"input": "Q1", "output": "A1"}, {"input": "Q2", "output": "A2"}]},
        {"conversation": [{"system": "s", "input": "Q", "output": "A"}, {"system": "s", "input": "Q", "output": "A"}]},
        {"conversation": [{"system": "s", "input": "Q", "output": "A"}, {"system": "t", "input": "Q", "output": "A"}]},
        {"conversation": [{"input": "", "output": "A text."}]},
        {"conversation": [{"input": "Q", "output": None}]},
        {"conversation": [{"input": 3, "output": "A"}]},
        {"conversations": []},
        "text",
    ]
    (desk / "x.json").write_text(json.dumps(records, indent=1))
    assert tool("tables_to_jsonl", "--from", "xtuner", "-i", "x.json", "-o", "out.jsonl") == 0
    talks = [[(turn["role"], turn["content"]) for turn in record["messages"]] for record in read_lines("out.jsonl")]
    assert talks == [
        [("system", DOCTOR), ("user", "Q1"), ("assistant", "A1")],
        [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")],
        [("system", "s"), ("user", "Q"), ("assistant", "A"), ("user", "Q"), ("assistant", "A")],
    ]
    assert read_lines("out.jsonl")[1]["id"] == 7
    assert [row["reason"] for row in read_lines("out.skipped.jsonl")] == [
        "turn 2 has another system message than turn 1",
        "turn 1: no 'input'",
        "turn 1: no 'output'",
        "turn 1: 'input' is no text",
        "no list 'conversation' of turns with 'input' and 'output'",
        "no list 'conversation' of turns with 'input' and 'output'",
    ]
    assert "9 records = 3 records in out.jsonl + 6 left out" in capsys.readouterr().out
