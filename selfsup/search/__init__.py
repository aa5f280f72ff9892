"""Exact search: neighbours, ranks and indexes; the only room that compares queries with a bank.

`selfsup.search(model, gallery, query)` is a call, too: `selfsup.api.search`.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    """This package under the name of the call that it is for."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return importlib.import_module("selfsup.api").search(*args, **keywords)


sys.modules[__name__].__class__ = _CallableRoom
