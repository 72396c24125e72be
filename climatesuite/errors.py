"""The one error of data that breaks a contract: what, found, expected, remedy; and how commands say any error."""


class DataContractError(ValueError):
    """Data, a file or a setting that breaks a stated contract.

    Args:
        subject: What and where, e.g. ``tas in ssp245/r1i1p1f1`` or a file name.
        found: What was found there.
        expected: What had to be there.
        remedy: What the user can do about it.
    """

    def __init__(self, subject: str, found: str, expected: str, remedy: str) -> None:
        self.subject, self.found, self.expected, self.remedy = subject, found, expected, remedy
        super().__init__(f"{subject}: {found}; expected {expected}; {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        """All four parts, so that the error survives the way back from another process (dask)."""
        return type(self), (self.subject, self.found, self.expected, self.remedy)


class RepairWarning(UserWarning):
    """Something in a file was wrong and has been set right without a guess; the text says in which file, and what."""


def sentence(error: Exception) -> str:
    """An error as a command says it; the operating system's with the file that it is about."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
