"""The recipes for text read the data that they are for, as users have it."""

import csv
import json
from pathlib import Path

import openpyxl
import pytest

from mmtune.cli import main

ROWS = [["qtype", "Question", "Answer"], ["a", "What is gout?", "A kind of arthritis."], ["b", "Is it rare?", "No."]]
ALPACA = [{"instruction": "Add.", "input": "1 + 2", "output": "3"}, {"instruction": "Say hi.", "output": "Hi."}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Not trained.", "loss": False},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you."},
]


def write_xlsx(path):
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.save(path)


@pytest.fixture
def data(desk):
    Path("data").mkdir()
    write_xlsx("data/MedQA2019.xlsx")
    with open("data/medqa.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(ROWS)
    Path("data/messages.json").write_text(json.dumps([{"messages": TALK}]))
    Path("data/alpaca_data.json").write_text(json.dumps(ALPACA))
    Path("data/alpaca_data_zh.json").write_text(json.dumps(ALPACA))
    for name in ("domain", "domain_heldout", "general_heldout"):
        Path(f"data/{name}.jsonl").write_text(json.dumps({"text": "Gout hurts."}) + "\n")


@pytest.mark.parametrize(
    ("recipe", "overrides", "texts"),
    [
        ("medqa", [], ["experienced doctor", "What is gout?", "arthritis"]),
        ("medqa", ["data.train.0.path=data/medqa.csv"], ["experienced doctor", "What is gout?", "arthritis"]),
        ("messages", [], ["Be brief.", "Not trained.", "See you."]),
        ("alpaca", [], ["Add.", "1 + 2", "Say hi."]),
        ("mix", [], ["Add.", "arthritis"]),
        ("pretrain_text", ["model.llm.chat_template=plain"], ["Gout hurts."]),
    ],
)
def test_a_recipe_reads_its_data(data, tiny, capsys, recipe, overrides, texts):
    model = [f"model.llm.name_or_path={tiny.llm}", "model.llm.chat_template=chatml"]
    assert main(["data", "check", f"sft/{recipe}", *model, *overrides]) == 0
    capsys.readouterr()
    assert main(["inspect", f"sft/{recipe}", "-n", "9", *model, *overrides]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in texts), shown
