"""Tiny benchmarks in the layouts that their authors publish, one function each; images are of one colour."""

import base64
import io
import json
from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue", "white")


def picture(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 32), colour).save(path)


def base64_picture(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_lines(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")


def write_tsv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(rows[0]), *("\t".join(str(cell) for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_pope(folder: Path):
    for number, colour in enumerate(COLOURS):
        picture(folder / "val2014" / f"COCO_val2014_{number:012d}.jpg", colour)
    for category in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": number,
                "image": f"COCO_val2014_{number % 4:012d}.jpg",
                "text": f"Is there a {('dog', 'cat', 'car')[number % 3]} in the image?",
                "label": ("yes", "no")[number % 2],
            }
            for number in range(6)
        ]
        write_lines(folder / "coco" / f"coco_pope_{category}.json", rows)


def write_mme(folder: Path):
    text = "Is it red? Please answer yes or no.\tYes\nIs it black? Please answer yes or no.\tNo\n"
    for number in range(2):
        picture(folder / "color" / f"{number:04d}.jpg")
        (folder / "color" / f"{number:04d}.txt").write_text(text)
        picture(folder / "artwork" / "images" / f"{number}.jpg")
        path = folder / "artwork" / "questions_answers_YN" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        picture(folder / "code_reasoning" / f"{number:04d}.png")
        (folder / "code_reasoning" / f"{number:04d}.txt").write_text(text)


def write_scienceqa(folder: Path):
    problem = {"question": "Which?", "choices": ["up", "down"], "answer": 1, "hint": "", "subject": "natural science"}
    problems = {
        "3": problem | {"image": "image.png", "hint": "Look."},
        "5": problem | {"image": None},
        "8": problem | {"image": "image.png", "subject": "social science"},
        "9": problem | {"image": "image.png"},
    }
    write_json(folder / "problems.json", problems)
    write_json(folder / "pid_splits.json", {"train": ["9"], "test": ["3", "5", "8"]})
    for name in ("3", "8"):
        picture(folder / "images" / "test" / name / "image.png")


def mmbench_row(index, options, answer, image, question="What is it?", hint="nan", category="object"):
    letters = dict.fromkeys("ABCD", "nan") | dict(zip("ABCD", options, strict=False))
    row = {"index": index, "question": question, "hint": hint, **letters, "answer": answer, "category": category}
    return row | {"image": image, "source": "x", "l2-category": "y", "comment": "nan", "split": "dev"}


def write_mmbench(folder: Path, name="mmbench_dev_20230712.tsv"):
    first, second = base64_picture("red"), base64_picture("blue")
    rows = [
        mmbench_row(1, ["cat", "dog", "owl"], "B", first, hint="Look."),
        mmbench_row(2, ["red", "blue"], "B", second, category="colour"),
        mmbench_row(1_000_001, ["dog", "owl", "cat"], "A", first, hint="Look."),
        mmbench_row(2_000_001, ["owl", "cat", "dog"], "C", first, hint="Look."),
        mmbench_row(1_000_002, ["blue", "red"], "A", "2", category="colour"),
    ]
    write_tsv(folder / name, rows)


def write_gqa(folder: Path):
    questions = {}
    for number, colour in enumerate(COLOURS):
        picture(folder / "images" / f"n{number}.jpg", colour)
        types = {"structural": ("query", "verify")[number % 2]}
        questions[f"20{number}"] = {
            "question": "What colour is it?",
            "imageId": f"n{number}",
            "answer": colour,
            "types": types,
        }
    write_json(folder / "testdev_balanced_questions.json", questions)


def write_textvqa(folder: Path):
    data, words = [], []
    for number in range(3):
        picture(folder / "train_images" / f"i{number}.jpg")
        answers = ["nokia"] * 6 + ["Nokia phone"] * 4
        data.append(
            {"question": "what brand?", "image_id": f"i{number}", "question_id": 34600 + number, "answers": answers}
        )
        words.append({"image_id": f"i{number}", "ocr_tokens": ["NOKIA", "17:02"]})
    write_json(folder / "TextVQA_0.5.1_val.json", {"data": data})
    write_json(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": words})


def write_vqav2(folder: Path):
    questions, annotations = [], []
    for number in range(3):
        picture(folder / "val2014" / f"COCO_val2014_{number:012d}.jpg")
        questions.append({"image_id": number, "question": "Is it red?", "question_id": 10 * number})
        answers = [{"answer": "yes", "answer_id": person} for person in range(1, 11)]
        annotations.append({"question_id": 10 * number, "answer_type": "yes/no", "answers": answers})
    write_json(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write_json(folder / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})


def write_multiple_choice(folder: Path):
    picture(folder / "cell.png")
    rows = [
        {"question": "What is 2 + 2?", "choices": ["3", "4"], "answer": "B", "category": "arithmetic"},
        {"question": "What is shown?", "choices": ["a cell", "a star", "a car"], "answer": 0, "image": "cell.png"},
    ]
    write_lines(folder / "mine.jsonl", rows)


def write_perplexity(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "book.txt").write_text("It was a dark night. " * 20)
    write_lines(folder / "notes.jsonl", [{"text": "Hello, you."}, {"text": "Yes. Yes."}])


WRITERS = {
    "pope": write_pope,
    "mme": write_mme,
    "scienceqa": write_scienceqa,
    "mmbench": write_mmbench,
    "mmbench_cn": lambda folder: write_mmbench(folder, "mmbench_dev_cn_20231003.tsv"),
    "gqa": write_gqa,
    "textvqa": write_textvqa,
    "vqav2": write_vqav2,
    "multiple_choice": write_multiple_choice,
    "perplexity": write_perplexity,
}
