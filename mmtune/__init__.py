"""mmtune: teach a language model to see, and train it on text with the same code.

The names of `MODULE_OF` are the library; `docs/library.md` shows them at work. Each is imported when it is first asked
for, so that `import mmtune` takes no time. The modules that hold them may change between versions, these names do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

MODULE_OF = {
    # configs
    "Config": "mmtune.schema",
    "load_config": "mmtune.config",
    "config_from_values": "mmtune.config",
    # what the verbs do
    "train": "mmtune.training.run",
    "run_recipe": "mmtune.recipe",
    "ChatSession": "mmtune.chat.session",
    "Decoding": "mmtune.chat.generate",
    "compare_models": "mmtune.evaluate.compare",
    "score": "mmtune.evaluate.scores",
    "Question": "mmtune.evaluate.questions",
    "read_questions": "mmtune.evaluate.questions",
    "build_report": "mmtune.evaluate.report",
    "write_report": "mmtune.evaluate.report",
    "merge_runs": "mmtune.merge",
    "Combination": "mmtune.models.combining",
    "export_run": "mmtune.export.formats",
    # conversations
    "Conversation": "mmtune.conversation",
    "Document": "mmtune.conversation",
    "Message": "mmtune.conversation",
    "ImageSlot": "mmtune.conversation",
    "Sample": "mmtune.conversation",
    "IMAGE_TOKEN_ID": "mmtune.conversation",
    "IGNORE_INDEX": "mmtune.conversation",
    # the parts of a loop
    "Parts": "mmtune.parts",
    "build_parts": "mmtune.build",
    "load_initial_weights": "mmtune.build",
    "load_run": "mmtune.build",
    "choose_device": "mmtune.models.device",
    "build_reader": "mmtune.build_data",
    "build_dataset": "mmtune.build_data",
    "ConversationDataset": "mmtune.data.conversation_dataset",
    "encode": "mmtune.data.encode",
    "encode_document": "mmtune.data.encode",
    "collate": "mmtune.data.collate",
    "choose_collator": "mmtune.training.rows",
    "batch_sampler": "mmtune.training.steps",
    "VisionLanguageModel": "mmtune.models.vlm",
    "answer_loss": "mmtune.models.loss",
    "save_run": "mmtune.saving",
    # errors and lines
    "log_policy": "mmtune.logs",
    "MMTuneError": "mmtune.errors",
    "ConfigError": "mmtune.errors",
    "DataError": "mmtune.errors",
    "ModelError": "mmtune.errors",
    "CheckpointError": "mmtune.errors",
    "TrainingError": "mmtune.errors",
    "Interrupted": "mmtune.errors",
}
"""Public name -> where it lives."""

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from mmtune.build import build_parts as build_parts
    from mmtune.build import load_initial_weights as load_initial_weights
    from mmtune.build import load_run as load_run
    from mmtune.build_data import build_dataset as build_dataset
    from mmtune.build_data import build_reader as build_reader
    from mmtune.chat.generate import Decoding as Decoding
    from mmtune.chat.session import ChatSession as ChatSession
    from mmtune.config import config_from_values as config_from_values
    from mmtune.config import load_config as load_config
    from mmtune.conversation import IGNORE_INDEX as IGNORE_INDEX
    from mmtune.conversation import IMAGE_TOKEN_ID as IMAGE_TOKEN_ID
    from mmtune.conversation import Conversation as Conversation
    from mmtune.conversation import Document as Document
    from mmtune.conversation import ImageSlot as ImageSlot
    from mmtune.conversation import Message as Message
    from mmtune.conversation import Sample as Sample
    from mmtune.data.collate import collate as collate
    from mmtune.data.conversation_dataset import ConversationDataset as ConversationDataset
    from mmtune.data.encode import encode as encode
    from mmtune.data.encode import encode_document as encode_document
    from mmtune.errors import CheckpointError as CheckpointError
    from mmtune.errors import ConfigError as ConfigError
    from mmtune.errors import DataError as DataError
    from mmtune.errors import Interrupted as Interrupted
    from mmtune.errors import MMTuneError as MMTuneError
    from mmtune.errors import ModelError as ModelError
    from mmtune.errors import TrainingError as TrainingError
    from mmtune.evaluate.compare import compare_models as compare_models
    from mmtune.evaluate.questions import Question as Question
    from mmtune.evaluate.questions import read_questions as read_questions
    from mmtune.evaluate.report import build_report as build_report
    from mmtune.evaluate.report import write_report as write_report
    from mmtune.evaluate.scores import score as score
    from mmtune.export.formats import export_run as export_run
    from mmtune.logs import log_policy as log_policy
    from mmtune.merge import merge_runs as merge_runs
    from mmtune.models.combining import Combination as Combination
    from mmtune.models.device import choose_device as choose_device
    from mmtune.models.loss import answer_loss as answer_loss
    from mmtune.models.vlm import VisionLanguageModel as VisionLanguageModel
    from mmtune.parts import Parts as Parts
    from mmtune.recipe import run_recipe as run_recipe
    from mmtune.saving import save_run as save_run
    from mmtune.schema import Config as Config
    from mmtune.training.rows import choose_collator as choose_collator
    from mmtune.training.run import train as train
    from mmtune.training.steps import batch_sampler as batch_sampler
else:  # type checkers would take a module with `__getattr__` to have any name

    def __getattr__(name: str) -> Any:
        """Import a public name (PEP 562)."""
        if name not in MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(MODULE_OF[name]), name)
        globals()[name] = value
        return value


__all__ = [*MODULE_OF]


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULE_OF})
