"""The error tree: one root, a code and a meaning for each."""

import inspect

import pytest

from safety_wrapper import errors
from safety_wrapper.errors import SafetyError

ALL = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, Exception)]


@pytest.mark.parametrize("error", ALL, ids=lambda e: e.__name__)
def test_every_error_has_one_root_a_meaning_and_the_right_ending(error):
    assert issubclass(error, SafetyError)
    assert error.__name__.endswith("Error")
    assert error.__doc__
    assert error.code


def test_the_documented_tree_names_every_error():
    for error in ALL:
        assert error.__name__ in errors.__doc__, error.__name__


def test_an_error_says_what_to_do():
    error = errors.ConfigError("the file is away", do="make one")
    assert (str(error), error.message, error.do) == ("the file is away", "the file is away", "make one")
    assert errors.StageError("x").do == ""


def test_a_wire_error_carries_its_code():
    assert errors.WireError("busy", "too much").code == "busy"
