"""The errors a user can cause. Each is one line: the place, what is wrong, the mend.

Nothing else lives here. Bugs of our own stay ordinary exceptions with a traceback.
"""


class MMTuneError(Exception):
    """A mistake that the user can mend; the command line prints it as one line and exits with code 2.

    Args:
        place: where it is, such as `data/mix.json:88`, a config key or a folder.
        message: what is wrong, what is allowed or nearest, and the mend, as whole sentences. Always given.
    """

    def __init__(self, place: object, message: str | None = None):
        if message is None:  # torch's DataLoader makes a worker's error anew, of the text of its traceback alone
            last_line = str(place).strip().splitlines()[-1].partition("Error: ")[2]
            place, _, message = last_line.partition(": ")
        self.place = str(place)
        one_line = " ".join(message.split())
        self.message = one_line.encode("utf-8", "backslashreplace").decode()  # a quoted text may be half a character
        super().__init__(f"{self.place}: {self.message}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.place, self.message)  # so that it comes out of a worker process as it is


class ConfigError(MMTuneError):
    """A config file, a config key or a command line argument is wrong."""


class DataError(MMTuneError):
    """A record, an image or a data file is wrong."""


class CheckpointError(MMTuneError):
    """A run folder or a weights file is wrong, incomplete or made for another model."""


class ModelError(MMTuneError):
    """A base model is missing, cannot be read or is of an unknown kind."""


class TrainingError(MMTuneError):
    """Training cannot go on: its numbers are not finite, or memory is out, or a process has died."""


class Interrupted(Exception):
    """A run was ended by a signal and can be continued.

    Args:
        message: what was saved.
        exit_code: 128 and the number of the signal.
    """

    def __init__(self, message: str, exit_code: int):
        self.exit_code = exit_code
        super().__init__(message)


class EndedElsewhere(Exception):
    """Another process of the run ended it, and says why: this one ends quietly."""


class TrainingAlarm(TrainingError):
    """A run is odd in a way that `train.alarms: error` does not let pass."""
