"""Errors that a person caused and a person can mend."""


class UserError(ValueError):
    """A sentence for the reader: what is wrong, where, and what to do. The command line prints it without a traceback
    (``--debug`` shows one) and exits with status 2."""
