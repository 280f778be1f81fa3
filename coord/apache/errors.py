"""What can be wrong with Apache ZooKeeper's files."""


class ApacheDataError(Exception):
    """The files cannot be taken over; the text is one line that names the file, and the place where there is
    one.
    """


class DamagedApacheFileError(ApacheDataError):
    """A file does not hold what ZooKeeper wrote."""

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(f"{path} at {offset}: {what}")
        self.path = path
        self.offset = offset
