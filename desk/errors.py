"""DeskError: the desk's own text cannot be used as it stands."""


class DeskError(Exception):
    """A desk file is missing or wrong; the message names the file, the key and the accepted form."""
