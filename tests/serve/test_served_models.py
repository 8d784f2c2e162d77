"""Runs and their base by name: each answers as it does alone, whoever was asked before."""

import pytest
from data_uris import image_part, png, text_part, uri, user
from fastapi.testclient import TestClient
from serve_workspace import settings
from training_workspace import make, models, write_workspace

from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.chat.switching import AdapterSwitch
from mmtune.serve.answering import Answerer
from mmtune.serve.api import build_app
from mmtune.serve.refusals import Refused
from mmtune.serve.served_models import load_served
from mmtune.serve.worker import Worker

__all__ = ["models"]

MESSAGES = [user([image_part(uri(png())), text_part("What colour?")])]
DATA = "data.train=[{path: dialogues.json, system: Be brief.}]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, models):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("served"))
        write_workspace(models)
        make("pretrain", verb="pretrain")
        make("birds", "train.learning_rate=3e-2")
        make("cars", "train.learning_rate=3e-2", "train.seed=3", DATA)
        make("stacked", "model.stack_on=[runs/birds]", "model.init_from=runs/birds", "train.learning_rate=3e-2")
        yield


def test_each_answers_as_it_does_alone(runs, tmp_path):
    (tmp_path / "red.png").write_bytes(png())
    switch = AdapterSwitch(["runs/birds", "runs/cars", "runs/stacked"])
    alone, decoding = {}, Decoding(max_new_tokens=12)
    for names in (["birds"], ["cars"], ["stacked"], ["stacked/stacked/0"], ["birds", "base"]):
        for name in names:
            switch.select(name)
        pieces = []
        session = ChatSession(switch.parts, decoding, "Be brief." if names == ["cars"] else None)
        session.ask("What colour?", (tmp_path / "red.png",), pieces.append)
        alone[names[-1]] = "".join(pieces)
    assert len(set(alone.values())) >= 3
    served = load_served("runs/birds", ["runs/cars", "runs/stacked"])
    assert served.names == ("birds", "cars", "stacked", "stacked/stacked/0", "base")
    with Worker() as worker:
        client = TestClient(build_app(Answerer(served), worker, settings()), base_url="http://localhost")
        for name in ("birds", "base", "cars", "base", "stacked", "stacked/stacked/0", "birds", "cars", "base"):
            asked = {"model": name, "messages": MESSAGES, "max_tokens": 12}
            reply = client.post("/v1/chat/completions", json=asked).json()
            assert reply["choices"][0]["message"]["content"] == alone[name], name
            assert reply["model"] == name
        without = client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 12}).json()
        assert without["choices"][0]["message"]["content"] == alone["birds"]
        assert client.get("/v1/models/stacked/stacked/0").json()["id"] == "stacked/stacked/0"


def test_the_system_message_is_that_of_each_run_or_the_one_that_is_given(runs):
    served = load_served("runs/birds", ["runs/cars"])
    assert [served[name].system for name in served.names] == [None, "Be brief.", None]
    assert load_served("runs/cars", [])["base"].system == "Be brief."
    assert {load_served("runs/cars", [], system=text)["cars"].system for text in ("", "Hm.")} == {None, "Hm."}


def test_a_run_without_an_adapter_has_no_base_to_ask(runs):
    assert load_served("runs/pretrain", []).names == ("pretrain",)
    with pytest.raises(Refused, match=r"model: there is no 'base' here\. There are: pretrain\."):
        load_served("runs/pretrain", [])["base"]


def test_a_model_without_a_run_is_served(runs, models):
    served = load_served(str(models / "llm"), [], template="chatml", system="Hm.")
    assert (served.names, served["llm"].system) == (("llm",), "Hm.")
