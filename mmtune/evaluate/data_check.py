"""The check of a config's data, before a model loads: `mmtune data check`, and the `check` step of a recipe."""

from pathlib import Path
from typing import Any

from mmtune.build_data import Reader, build_dataset, validation_config
from mmtune.errors import DataError
from mmtune.evaluate.data_report import check_summary, warnings_of, write_check
from mmtune.progress import Bars
from mmtune.schema import Config


def check_data(config: Config, reader: Reader, report_path: Path) -> dict[str, Any]:
    """Read every record of a config's training and validation data and open every image.

    Args:
        config: whose data is not streamed.
        reader: of its model.
        report_path: where findings are listed, one a line; no file where there is none.

    Returns:
        Counts and findings by kind: see `check_summary`, with `num_listed`.

    Raises:
        DataError: a source cannot be read at all.
        ConfigError: the report cannot be written.
    """
    with Bars() as bars:
        dataset, report = build_dataset(config, reader, bars)
        stores = [part.store for part in dataset.parts]
        if config.data.validation:
            measured, more = build_dataset(validation_config(config), reader, bars)
            stores, report = stores + [part.store for part in measured.parts], report.joined(more)
    warnings = warnings_of(stores)
    return check_summary(report, stores, warnings) | {"num_listed": write_check(report_path, report, warnings)}


def require_good_check(config: Config, summary: dict[str, Any], report_path: Path) -> None:
    """Hold that a run of the config would not stop at its data.

    Raises:
        DataError: records are bad and `data.on_bad_record` is `error`, or no sample is left to train or to measure.
    """
    num_trained = len(config.data.train)
    for key, sources in (("train", summary["sources"][:num_trained]), ("validation", summary["sources"][num_trained:])):
        if sources and not sum(source["num_samples_in_an_epoch"] for source in sources):
            num_records = sum(source["num_records"] for source in sources)
            message = f"no sample is left of the {num_records} records of data.{key}. Mend what is listed there."
            raise DataError(report_path, message)
    num_bad = summary["num_bad_records"]
    if num_bad and config.data.on_bad_record == "error":
        message = f"{num_bad} of {summary['num_records']} records cannot be trained."
        raise DataError(report_path, f"{message} Mend what is listed there, or set data.on_bad_record=skip.")
