"""The examples in docstrings run as they stand, and whatever is to be used alone has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import selfsup.augment
import selfsup.data
import selfsup.losses
import selfsup.mining

ROOMS = [selfsup.augment, selfsup.data, selfsup.losses, selfsup.mining]
"""Rooms whose public functions all have an example."""
MODULES = [
    f"{room.__name__}.{module.name}"
    for room in ROOMS
    for module in pkgutil.iter_modules(room.__path__)
]
"""Modules whose examples run; a module of another room goes here by name."""
PUBLIC = [(room.__name__, name) for room in ROOMS for name in room.__all__]


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_what_they_say(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module), extraglobs={"torch": torch})
    assert results.failed == 0


@pytest.mark.parametrize(("room", "name"), PUBLIC)
def test_a_public_function_has_an_example_and_no_module_of_its_name(room: str, name: str) -> None:
    public = getattr(importlib.import_module(room), name)
    assert not inspect.ismodule(public)
    assert f"{room}.{name}" not in MODULES
    if inspect.isfunction(public):
        assert public.__doc__ is not None
        assert ">>> " in public.__doc__
