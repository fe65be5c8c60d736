"""Errors that a user can fix. A job prints the message and exits with code 2."""


class InputError(Exception):
    """Bad input or settings: one message with place, reason and fix.

    `where` names the file, row or key; `fix` ends the message. Both may be empty. The three parts are attributes, so
    the error survives pickling between Ray processes.
    """

    def __init__(self, reason: str, where: str = "", fix: str = "") -> None:
        super().__init__(reason, where, fix)
        self.reason = reason
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.reason}" if self.where else self.reason
        stop = "" if text.endswith("?") else "."
        return f"{text.rstrip('.')}{stop} Fix: {self.fix}" if self.fix else text
