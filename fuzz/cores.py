# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two cores as the fuzz targets see them: both tell libFuzzer which way an input took."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

from frame import atheris

with atheris.instrument_imports(include=["kdumpfence._purewire"]):
    pure: Any = importlib.import_module("kdumpfence._purewire")


def _compiled() -> Any:
    """The copy of the compiled core that run.py built with coverage, else the installed one."""
    path = os.environ.get("KDUMPFENCE_FUZZ_NATIVE")
    if not path:
        return importlib.import_module("kdumpfence._kdumpwire")
    spec: Any = importlib.util.spec_from_file_location("kdumpfence._kdumpwire", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compiled: Any = _compiled()
both = (compiled, pure)
